"""The names of the files of a run directory, and atomic writes."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
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
EXCEPTION = "exception.log"
GRAPH = "graph.json"
LOCK = ".lock"
NOTES_LOCK = ".notes.lock"
_OWN = frozenset(
    {MODEL_CONFIG, TRAINER_CONFIG, TOKENIZER, TOKENIZER_FOLDER, COMPOSED_CONFIG, RUN, MODEL_SOURCE, STATUS, LOG}
    | {ENVIRONMENT, TENSORBOARD, STOP, NOTES, NOTES_LOCK, SYSTEM_LOG, LOCK, MEDIA, CONSOLE, EXCEPTION, GRAPH}
)
_CHECKPOINT = "iter-"  # the prefix of checkpoints and their manifests
_BLOCK = 4096  # bytes; file systems allocate space in blocks of this size, or larger
_OLD = 3600.0  # seconds; no write of a small file takes longer


@contextmanager
def open_atomically(
    path: Path, *, stale: Path | None = None, prepare: Callable[[], None] = lambda: None
) -> Iterator[IO[bytes]]:
    """Open a temporary file, for writing and reading, that replaces ``path`` unless the block raises.

    The file is synchronised before it is renamed, and the folder before this returns. After an error, ``path`` is
    completely the old or the new file, and the temporary file is removed.

    Args:
        path: The file.
        stale: A file that describes the old content of ``path``; it is deleted durably before the rename.
        prepare: Called before the rename, when the new content is durable; if it raises, the old content stays.

    Raises:
        StorageError: The file system failed, for example because it is full.
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
            prepare()
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):  # report the first error
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
    """Check darkit's own files in a run directory before the run is resumed.

    Raises:
        StorageError: One of the files, or a file in one of the folders, is a link, a pipe or a device.
    """
    for path in sorted(folder.iterdir()):
        if is_own(path.name):
            refuse_links(path)


def is_own(name: str) -> bool:
    """Return whether a file or folder of this name in a run directory is darkit's own."""
    return name in _OWN or name.startswith(_CHECKPOINT)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of killed trainers. The caller holds the run's lock.

    Notes and requests are written without that lock, so their temporary files are removed only when they are old.

    Raises:
        StorageError: The file system failed.
    """
    others = tuple(f".{name}.tmp-" for name in (NOTES, STOP))
    for path in folder.glob(".*.tmp-*"):
        with suppress(FileNotFoundError):
            if path.name.startswith(others) and time.time() - path.lstat().st_mtime <= _OLD:
                continue
        if path.is_dir() and not path.is_symlink():  # of a checkpoint that is a folder
            with storage_errors(f"delete {path}"):
                shutil.rmtree(path)
        else:
            remove(path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system supports it."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems synchronise only files
            raise
    finally:
        os.close(descriptor)


def append_block(descriptor: int, data: bytes) -> None:
    """Write all data at the position of an open file, or restore its length. Raises `OSError`."""
    size = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        with suppress(OSError):  # report the failed write
            os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with open_atomically(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically, with lone surrogates as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    JSON has no infinity and no NaN. Infinity becomes ``1e999``, a valid number that every reader converts to infinity
    or to its largest number; NaN becomes ``null``.
    """
    write_text(path, json_text(value))  # escapes of lone surrogates are JSON's own


def json_text(value: Any) -> str:
    """Return what `write_json` writes."""
    return valid_json(json.dumps(value, indent=2, ensure_ascii=False)) + "\n"


def overwrite_json(path: Path, value: Any) -> None:
    """Overwrite an existing file with a JSON object within its allocated block: a full disk has no space for a new one.

    Raises:
        StorageError: The file system failed, or the object is too long.
    """
    data = json.dumps(value).encode()
    with storage_errors(f"write {path}"), os.fdopen(open_for_writing(path), "wb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = data.ljust(size - 1) + b"\n"  # overwrites all of a longer file
        if len(data) > max(_BLOCK, size) or os.pwrite(file.fileno(), data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())


def why_unreadable(path: Path) -> str:
    """Return why a file has no readable JSON object, or empty text if it has one."""
    try:
        read_object(path)
    except FileNotFoundError:
        return "it is missing"
    except UnreadableError as error:
        return error.reason
    return ""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing file, or one that is not a complete JSON object, counts as an empty object."""
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}
    except UnreadableError as error:
        cause = error.__cause__
        if not isinstance(cause, ValueError | RecursionError):  # a partially written file needs no warning
            reason = cause.strerror if isinstance(cause, OSError) else error.reason
            logger.warning("Cannot read %s: %s.", path, reason)
        return {}
