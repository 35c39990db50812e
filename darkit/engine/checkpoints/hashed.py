"""A file that is hashed by another thread while this one reads it."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

from darkit.runs.safe import open_regular

_PIECE = 2**20  # bytes that are read and then hashed, while they are in the processor's cache
_SMALL = 2**16  # bytes; smaller reads are not worth a message
_FARTHEST = 2**22  # bytes; a read further on than this is a look at the end of the file
_WAITING = 16  # pieces


class HashedFile(io.RawIOBase):
    """A regular file to read, with the sha256 of all of it.

    What is read on from where the hash is goes to its thread from memory; the thread reads the rest. So the bytes are
    read once, and a read and its hash take no longer than the slower of both.

    Args:
        descriptor: The open file; it stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = open(descriptor, "rb", buffering=0, closefd=False)  # noqa: SIM115 - closed by `close`
        self._lock = threading.Lock()  # of the file's position, on systems without reads at a place
        self._size = os.fstat(descriptor).st_size
        self._position = self._passed = 0  # the next byte to read, and the first one that the thread does not have
        self._queue: Queue[tuple[int, memoryview | bytes] | None] = Queue(_WAITING)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="darkit-verify")
        self._digest = self._threads.submit(self._hash)
        self._ended = False

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, and return it."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into memory, which may be freed afterwards: only a copy of the last piece is hashed later."""
        target = memoryview(buffer).cast("B")
        start, done, tail = self._position, 0, b""
        passes = self._passes(start, len(target))
        try:
            while done < len(target):
                count = self._read_at(target[done : done + _PIECE], start + done)
                if not count:
                    break
                piece, done = target[done : done + count], done + count
                if passes and done < len(target):
                    self._queue.put((start + done - count, piece))
                elif passes:
                    tail = bytes(piece)
        finally:
            if passes:
                self._queue.join()
        if passes:
            self._queue.put((start + done - len(tail), tail))
            self._passed = start + done
        self._position = start + done
        return done

    def _read_at(self, memory: memoryview, place: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [memory], place)
        with self._lock:
            self._file.seek(place)
            return self._file.readinto(memory)

    def _passes(self, start: int, count: int) -> bool:
        """Return whether the thread gets what is read here."""
        ahead = start - self._passed
        return not self._ended and 0 <= ahead <= _FARTHEST and (count >= _SMALL or ahead >= _PIECE)

    def sha256(self) -> str:
        """Wait for the hash of the whole file, and return it as hexadecimal text.

        Raises:
            OSError: The file cannot be read.
        """
        self._end()
        return self._digest.result()

    def close(self) -> None:
        """End the thread."""
        self._end()
        self._threads.shutdown()
        self._file.close()
        super().close()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._queue.put(None)

    def _hash(self) -> str:
        digest, position = hashlib.sha256(), 0
        failure: OSError | None = None
        while (item := self._queue.get()) is not None:
            start, piece = item
            try:
                if failure is None:
                    self._hash_rest(digest, position, start)
                    digest.update(piece)
                    position = start + len(piece)
            except OSError as error:  # the reader must not wait for ever
                failure = error
            finally:
                self._queue.task_done()
        if failure is not None:
            raise failure
        self._hash_rest(digest, position, self._size)
        return digest.hexdigest()

    def _hash_rest(self, digest: Any, start: int, end: int) -> None:
        """Hash a part of the file that is not in memory."""
        buffer = memoryview(bytearray(max(0, min(_PIECE, end - start))))
        while start < end and (count := self._read_at(buffer[: end - start], start)):
            digest.update(buffer[:count])
            start += count


@contextmanager
def hashed(path: Path) -> Iterator[HashedFile]:
    """Open a regular file to be read and hashed.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is not a regular file, or the file system refused.
    """
    with open_regular(path) as descriptor, HashedFile(descriptor) as file:
        yield file
