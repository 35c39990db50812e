"""Access to files from untrusted sources: regular files only, without following links, with a bound on the size.

A run directory may be a copy from an untrusted source. All reads and writes below one open their files here.
`darkit.runs.names.run_path` checks the run directory itself; folders above it are trusted and may be links.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darkit.errors import StorageError

LONGEST_JSON = 16 * 2**20  # bytes
LONGEST_TEXT = 2 * 2**20  # bytes
_LARGEST = 1e300
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
DEEPEST = 100  # levels of nesting; deeper values exhaust the stack of recursive readers


class UnreadableError(Exception):
    """A file that exists but cannot be read or trusted; the message has its name and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name}: {reason}")
        self.reason = reason


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open a regular file for reading and yield its descriptor.

    A link is not followed, and a pipe or a device is not waited for.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is not a regular file, or the file system refused.
    """
    try:
        descriptor = _open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableError(path, f"it is a link ({reason})" if path.is_symlink() else reason) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnreadableError(path, "it is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def open_for_writing(path: Path, flags: int = os.O_WRONLY) -> int:
    """Open a regular file of a run directory for writing, and return its descriptor.

    Args:
        path: The file.
        flags: How, such as ``os.O_WRONLY | os.O_CREAT``.

    Raises:
        StorageError: A link, a folder or something else that is not a regular file exists there.
        OSError: The file system refused.
    """
    try:
        descriptor = _open(path, flags)
    except OSError as error:
        if is_strange(path):
            raise _strange(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _strange(path)
    return descriptor


def _open(path: Path, flags: int) -> int:
    if not hasattr(os, "O_NOFOLLOW") and is_strange(path):  # Windows; elsewhere the system itself refuses a link
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags | _FLAGS, 0o644)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Read at most ``count`` bytes of an open file from an offset; Windows has no ``os.pread``."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


def make_folder(path: Path) -> Path:
    """Make a folder in a run directory, unless it exists.

    Raises:
        StorageError: It, or something below it, is a link, or it is not a folder.
        OSError: The file system refused.
    """
    refuse_links(path)
    path.mkdir(exist_ok=True)
    return path


def refuse_links(path: Path) -> None:
    """Check a file or a folder with everything below it before something that opens files by name writes there.

    Raises:
        StorageError: It is, or holds, something other than regular files and folders.
    """
    if is_strange(path):
        raise _strange(path)
    for folder, folders, names in os.walk(path):  # follows no link
        for name in (*folders, *names):
            if is_strange(Path(folder, name)):
                raise _strange(Path(folder, name))


def is_strange(path: Path) -> bool:
    """Return whether a path is a link, a pipe, a device or a socket."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _strange(path: Path) -> StorageError:
    what = "a link" if path.is_symlink() else "not a regular file"
    return StorageError(errno.ELOOP, f"{path} is {what}; darkit does not write through it. Remove it.")


def read_bytes(path: Path, limit: int = LONGEST_JSON) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is not a regular file, is longer, or cannot be read.
    """
    with open_regular(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise UnreadableError(path, f"it has {size} bytes, more than {limit}")
        try:
            return os.read(descriptor, limit)
        except OSError as error:
            raise UnreadableError(path, f"{error.strerror}") from error


def read_text(path: Path, limit: int = LONGEST_TEXT) -> str:
    """Read at most ``limit`` bytes of text; a file that is missing or cannot be read is empty text."""
    try:
        with open_regular(path) as descriptor:
            return os.read(descriptor, limit).decode("utf-8", "replace")
    except (OSError, UnreadableError):
        return ""


def read_object(path: Path, limit: int = LONGEST_JSON) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is not a regular file, too long, or not a JSON object.
    """
    data = read_bytes(path, limit)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(path, "it is not valid JSON") from error
    if not isinstance(value, dict):
        raise UnreadableError(path, "it is not a JSON object")
    if is_too_deep(value):
        raise UnreadableError(path, f"its values are nested more than {DEEPEST} deep")
    return value


def finite_number(value: object) -> float | None:
    """Return a value from JSON if it is a finite number that a float holds, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST and math.isfinite(value) else None


def as_dict(value: object) -> dict[str, Any]:
    """Return a value from JSON if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def is_too_deep(value: Any) -> bool:
    """Return whether a value from JSON or YAML holds others more than `DEEPEST` deep."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True
