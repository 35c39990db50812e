"""Reading files that somebody else may have put there: regular files only, no links followed, never without a bound."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_JSON = 16 * 2**20  # bytes
LONGEST_TEXT = 2 * 2**20  # bytes


class UnreadableError(Exception):
    """A file that is there but cannot be trusted; the text says which and why, for a person.

    Args:
        path: The file.
        reason: Why.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name}: {reason}")
        self.reason = reason


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Opens a regular file for reading and gives its descriptor.

    A link is not followed, and a pipe or a device is not waited for.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is no regular file, or the file system refused.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, str(error), str(path)) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableError(path, f"it is a link ({reason})" if path.is_symlink() else reason) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnreadableError(path, "it is no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def read_bytes(path: Path, limit: int = LONGEST_JSON) -> bytes:
    """Reads a whole file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is no regular file, is longer, or cannot be read.
    """
    with open_regular(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise UnreadableError(path, f"it has {size} bytes, more than {limit}")
        try:
            return os.pread(descriptor, limit, 0)
        except OSError as error:
            raise UnreadableError(path, f"{error.strerror}") from error


def read_text(path: Path, limit: int = LONGEST_TEXT) -> str:
    """Reads at most ``limit`` bytes of text; a file that is not there or cannot be read is empty text."""
    try:
        with open_regular(path) as descriptor:
            return os.pread(descriptor, limit, 0).decode("utf-8", "replace")
    except (OSError, UnreadableError):
        return ""


def read_object(path: Path, limit: int = LONGEST_JSON) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is no regular file, too long, or no whole JSON object.
    """
    data = read_bytes(path, limit)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(path, "it is no whole JSON") from error
    if not isinstance(value, dict):
        raise UnreadableError(path, "it holds no JSON object")
    return value
