"""The names of the files of a run directory, and the one way to write a whole file: complete or not at all."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from darkit.errors import StorageError

MODEL_CONFIG = "config.json"
TRAINER_CONFIG = "trainer_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_FOLDER = "tokenizer"
COMPOSED_CONFIG = "config.yaml"
RUN = "run.json"
MODEL_SOURCE = "model.py"
STATUS = "status.json"
LOG = "train_log.csv"
TENSORBOARD = "tensorboard"
LOCK = ".lock"


@contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside ``path`` that takes its place when the block ends without an error.

    The bytes are on the disk before the name changes, and the name before this returns: file and folder are both
    synchronised. After an error the old file is whole and the temporary one is gone.

    Raises:
        StorageError: The file system refused, for example because it is full.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{threading.get_ident()}")
    try:
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(error.errno, f"Cannot write {path}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 file: all of it, or the old one stays."""
    with open_atomically(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON: all of it, or the old file stays."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; a file that is not there, or is no whole JSON object, counts as an empty one."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
