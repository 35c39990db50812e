"""What the process of a run printed: ``console.log``, of which the beginning and the end are kept."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from darkit.runs import files
from darkit.runs.safe import UnreadableError, open_for_writing, open_regular, read_at

HEAD = 2**20  # bytes from the beginning that are kept
TAIL = 4 * 2**20  # bytes from the end that are kept
_SLACK = 4 * 2**20  # bytes beyond both before the middle is left out
_LEFT_OUT = re.compile(rb"\.\.\. ([\d,]{1,30}) bytes left out \.\.\.\n")
logger = logging.getLogger(__name__)


class ConsoleLog:
    """Append text to a run's ``console.log``; beyond 9 MiB, 1 MiB of its beginning and 4 MiB of its end stay.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / files.CONSOLE

    def append(self, text: str) -> None:
        """Append whole lines. Raises `StorageError`; the file is then as before."""
        data = text.encode("utf-8", "backslashreplace")
        with files.storage_errors(f"write {self._path}"):
            descriptor = open_for_writing(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                files.append_block(descriptor, data)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        if size > HEAD + TAIL + _SLACK:
            self._leave_out(size)

    def _leave_out(self, size: int) -> None:
        """Replace the middle of the file by a line that says how much it was."""
        with files.storage_errors(f"read {self._path}"), open_regular(self._path) as descriptor:
            head = _whole_lines(read_at(descriptor, HEAD, 0))
            tail = read_at(descriptor, TAIL, size - TAIL)
            marker = _LEFT_OUT.match(read_at(descriptor, 100, len(head)))
        tail = tail[tail.find(b"\n") + 1 :]
        before = int(marker[1].replace(b",", b"")) - len(marker[0]) if marker else 0
        left = before + size - len(head) - len(tail)
        files.write_bytes(self._path, head + f"... {left:,} bytes left out ...\n".encode() + tail)


def read_console(folder: Path, limit: int = HEAD + TAIL + 2 * _SLACK) -> str:
    """Return what a run printed, at most so many bytes of its end; empty if nothing is recorded.

    The text is untrusted: it goes to a terminal only through `darkit.runs.inert.inert`.
    """
    try:
        with open_regular(folder / files.CONSOLE) as descriptor:
            size = os.fstat(descriptor).st_size
            data = read_at(descriptor, limit, max(0, size - limit))
    except FileNotFoundError:
        return ""
    except (UnreadableError, OSError) as error:
        logger.warning("Cannot read the console of %s: %s", folder, error)
        return ""
    if size > limit:
        data = data[data.find(b"\n") + 1 :]
    return data.decode("utf-8", "replace")


def follow_console(folder: Path, after: int, limit: int) -> tuple[str, int, bool]:
    """Return the whole lines that a run printed after a place in its ``console.log``.

    Args:
        folder: The run directory.
        after: The place, as this function returned it last; 0 at first.
        limit: The most bytes; of more the end is returned.

    Returns:
        The text, the place after it, and whether it continues what was returned before: not where lines are left out
        in between, or when the file was cut.
    """
    try:
        with open_regular(folder / files.CONSOLE) as descriptor:
            size = os.fstat(descriptor).st_size
            continues = 0 <= size - after <= limit
            start = after if continues else max(0, size - limit)
            data = read_at(descriptor, limit, start)
    except FileNotFoundError:
        return "", 0, after == 0
    except (UnreadableError, OSError) as error:
        logger.warning("Cannot read the console of %s: %s", folder, error)
        return "", 0, after == 0
    whole = _whole_lines(data)
    first = 0 if continues or not start else whole.find(b"\n") + 1
    return whole[first:].decode("utf-8", "replace"), start + len(whole), continues


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
