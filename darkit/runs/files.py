"""The names of the files of a run directory, and the one way to write a whole file: complete or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from darkit.errors import DarkitError, StorageError
from darkit.runs.inert import valid_json
from darkit.runs.safe import UnreadableError, open_for_writing, read_object, refuse_links

logger = logging.getLogger(__name__)

MODEL_CONFIG = "config.json"
TRAINER_CONFIG = "trainer_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_FOLDER = "tokenizer"
COMPOSED_CONFIG = "config.yaml"
RUN = "run.json"
ENVIRONMENT = "environment.json"
MODEL_SOURCE = "model.py"
STATUS = "status.json"
LOG = "train_log.csv"
TENSORBOARD = "tensorboard"
STOP = "stop.json"
NOTES = "notes.json"
SYSTEM_LOG = "system_log.csv"
MEDIA = "media"
CONSOLE = "console.log"
LOCK = ".lock"
NOTES_LOCK = ".notes.lock"
_OWN = frozenset(
    {MODEL_CONFIG, TRAINER_CONFIG, TOKENIZER, TOKENIZER_FOLDER, COMPOSED_CONFIG, RUN, MODEL_SOURCE, STATUS, LOG}
    | {ENVIRONMENT, TENSORBOARD, STOP, NOTES, NOTES_LOCK, SYSTEM_LOG, LOCK, MEDIA, CONSOLE}
)
_CHECKPOINT = "iter-"  # what the names of checkpoints and their manifests begin with
_BLOCK = 4096  # bytes; file systems give a file its space in such blocks, or larger ones
_OLD = 3600.0  # seconds after which nobody is writing a small file any more


@contextmanager
def open_atomically(path: Path, *, stale: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a temporary file, for reading back too, that takes the place of ``path`` unless the block raises.

    The bytes are on the disk before the name changes, and the name before this returns: file and folder are both
    synchronised. After an error there is one whole file, the old or the new one, and the temporary one is gone.

    Args:
        path: The file.
        stale: A file that describes what ``path`` holds now, and not what it is going to hold: it is gone from the disk
            before the name changes.

    Raises:
        StorageError: The file system refused, for example because it is full.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{os.urandom(6).hex()}")
    with storage_errors(f"write {path}"):
        try:
            with os.fdopen(open_for_writing(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL), "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if stale is not None and stale.exists():
                stale.unlink()
                sync_folder(path.parent)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                temporary.unlink()
            raise


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says what failed.

    Args:
        doing: What the block does, such as ``write /home/me/run.json``.
    """
    try:
        yield
    except DarkitError:
        raise
    except OSError as error:
        raise StorageError(error.errno, f"Cannot {doing}: {error.strerror or error}.") from error


def remove(path: Path) -> None:
    """Delete a file if it exists. Raises `StorageError`."""
    with storage_errors(f"delete {path}"):
        path.unlink(missing_ok=True)


def refuse_linked_run(folder: Path) -> None:
    """Check everything of darkit's in a run directory before the run is written to again.

    Raises:
        StorageError: One of the files is a link, a pipe or a device, or one of the folders holds such a thing.
    """
    for path in sorted(folder.iterdir()):
        if path.name in _OWN or path.name.startswith(_CHECKPOINT):
            refuse_links(path)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of trainers that were killed; whoever calls it holds the run's lock.

    Notes and requests are written without that lock: theirs go only when they are old.

    Raises:
        StorageError: The file system refused.
    """
    others = tuple(f".{name}.tmp-" for name in (NOTES, STOP))
    for path in folder.glob(".*.tmp-*"):
        with suppress(FileNotFoundError):
            if path.name.startswith(others) and time.time() - path.lstat().st_mtime <= _OLD:
                continue
        remove(path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, if the system and the file system can."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems only know files
            raise
    finally:
        os.close(descriptor)


def append_block(descriptor: int, data: bytes) -> None:
    """Write all data at the position of an open file, or leave its length unchanged. Raises `OSError`."""
    size = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        with suppress(OSError):  # what is reported is why it could not be written
            os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file: all of it, or the old one stays."""
    with open_atomically(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file: all of it, or the old one stays. What UTF-8 cannot hold is written as an escape."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON: all of it, or the old file stays.

    JSON has no word for infinity or NaN. An infinity becomes ``1e999``, which is a valid number and which every reader
    takes for infinity or its largest one; NaN becomes ``null``.
    """
    text = valid_json(json.dumps(value, indent=2, ensure_ascii=False))
    write_text(path, text + "\n")  # escapes of lone surrogates are JSON's own


def overwrite_json(path: Path, value: Any) -> None:
    """Write a JSON object over a file that is there, in one call and in its block: where no new file fits on the disk.

    Raises:
        StorageError: The file system refused, or the object is too long for that.
    """
    data = json.dumps(value).encode()
    with storage_errors(f"write {path}"), os.fdopen(open_for_writing(path), "wb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = data.ljust(size - 1) + b"\n"  # overwrites all of a longer content
        if len(data) > max(_BLOCK, size) or os.pwrite(file.fileno(), data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())


def why_unreadable(path: Path) -> str:
    """Says why a file gives no JSON object, for a caller that cannot take it for an empty one; empty if it does."""
    try:
        read_object(path)
    except FileNotFoundError:
        return "it is missing"
    except UnreadableError as error:
        return error.reason
    return ""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not there, or is no whole JSON object, counts as an empty one."""
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}
    except UnreadableError as error:
        cause = error.__cause__
        if not isinstance(cause, ValueError | RecursionError):  # a file that is half written says nothing yet
            reason = cause.strerror if isinstance(cause, OSError) else error.reason
            logger.warning("Cannot read %s: %s.", path, reason)
        return {}
