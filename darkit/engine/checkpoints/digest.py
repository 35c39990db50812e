"""A file that is hashed and sent to the disk while it is being written."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Self

_PIECE = 2**22  # bytes that are read back and hashed at once; smaller files need no threads
_ON_THE_WAY = 2**25  # bytes after which the disk is asked for what was written


class DigestedFile:
    """A writable file with the sha256 of what went through, for writers that need the processor themselves.

    One thread hashes the file as the page cache has it, which copies nothing on the writer's side. Another one
    synchronises what has been written so far and lets go of the pages that are hashed, so that a large file needs
    little of the system's memory and the last synchronisation has little left to do. Both end with the block; what a
    thread could not read or synchronise is raised by `finish`.

    Args:
        file: An empty file that is open for writing and reading.

    Attributes:
        size: Bytes written.
        error: What the file system said when it refused a write, or None.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        self.error: OSError | None = None
        self._file = file
        self._descriptor = file.fileno()
        self._digest = hashlib.sha256()
        self._buffer = bytearray(_PIECE)
        self._hashed = 0
        self._readable = 0  # bytes that the threads may look at
        self._ended = False
        self._news = threading.Condition()
        self._threads: ThreadPoolExecutor | None = None
        self._jobs: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        if self._threads is not None:
            self._threads.shutdown()

    def write(self, data: bytes) -> int:
        """Writes all of it."""
        try:
            written = self._file.write(data)
            self.size += written
            if self.size - self._readable >= _PIECE:
                self._announce()
        except OSError as error:
            self.error = error
            raise
        return written

    def flush(self) -> None:
        """Hands everything to the system."""
        self._file.flush()

    def finish(self) -> str:
        """Waits for the threads and returns the sha256 of the whole, as hexadecimal digits. Raises their `OSError`."""
        self._file.flush()
        self._end()
        for job in self._jobs:
            job.result()
        self._hash_up_to(self.size)
        return self._digest.hexdigest()

    def _announce(self) -> None:
        self._file.flush()
        with self._news:
            self._readable = self.size
            self._news.notify_all()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2, thread_name_prefix="darkit-digest")
            try:
                self._jobs = [self._threads.submit(self._hash_along), self._threads.submit(self._send_along)]
            except RuntimeError:  # the interpreter is ending, and its threads take no more work: `finish` does all
                self._jobs = []

    def _end(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _hash_along(self) -> None:
        while not self._ended:
            self._hash_up_to(self._await(self._hashed + 1))

    def _send_along(self) -> None:
        sent = 0
        while not self._ended:
            end = self._await(sent + _ON_THE_WAY)
            if end - sent >= _ON_THE_WAY:
                os.fsync(self._descriptor)
                if hasattr(os, "posix_fadvise"):  # macOS has none
                    os.posix_fadvise(self._descriptor, 0, min(end, self._hashed), os.POSIX_FADV_DONTNEED)
                sent = end

    def _await(self, wanted: int) -> int:
        """Waits until so many bytes can be read, or the file has ended; returns how many can be."""
        with self._news:
            self._news.wait_for(lambda: self._readable >= wanted or self._ended)
            return self._readable

    def _hash_up_to(self, end: int) -> None:
        view = memoryview(self._buffer)
        while self._hashed < end:
            count = os.preadv(self._descriptor, [view[: min(_PIECE, end - self._hashed)]], self._hashed)
            if not count:
                raise OSError(f"Only {self._hashed} of {end} bytes can be read back.")
            self._digest.update(view[:count])
            self._hashed += count
