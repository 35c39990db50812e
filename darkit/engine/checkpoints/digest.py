"""A file that is hashed and synchronised while it is written."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Self

_PIECE = 2**22  # bytes per hash update; smaller files need no threads
_SYNC_INTERVAL = 2**25  # bytes between synchronisations


class DigestedFile:
    """A writable file with a sha256, computed by other threads than the writer's.

    One thread hashes the file from the page cache, without copies in the writer. Another synchronises the written part
    and frees its hashed pages, so that a large file needs little memory and the last synchronisation is short. Both
    threads end with the block; `finish` raises their errors.

    Args:
        file: An empty file, open for writing and reading.

    Attributes:
        size: Bytes written.
        error: The error of a failed write, or None.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        self.error: OSError | None = None
        self._file = file
        self._descriptor = file.fileno()
        self._digest = hashlib.sha256()
        self._buffer = bytearray(_PIECE)
        self._hashed = 0
        self._readable = 0  # bytes that the threads may read
        self._ended = False
        self._changed = threading.Condition()
        self._threads: ThreadPoolExecutor | None = None
        self._jobs: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        if self._threads is not None:
            self._threads.shutdown()

    def write(self, data: bytes) -> int:
        """Write all data."""
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
        """Flush the file's buffer."""
        self._file.flush()

    def finish(self) -> str:
        """Wait for the threads and return the hexadecimal sha256. Raises their `OSError`."""
        self._file.flush()
        self._end()
        for job in self._jobs:
            job.result()
        self._hash_up_to(self.size)
        return self._digest.hexdigest()

    def _announce(self) -> None:
        self._file.flush()
        with self._changed:
            self._readable = self.size
            self._changed.notify_all()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2, thread_name_prefix="darkit-digest")
            try:
                self._jobs = [self._threads.submit(self._hash_along), self._threads.submit(self._send_along)]
            except RuntimeError:  # at interpreter exit no thread can start: `finish` does all
                self._jobs = []

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _hash_along(self) -> None:
        while not self._ended:
            self._hash_up_to(self._await(self._hashed + 1))

    def _send_along(self) -> None:
        sent = 0
        while not self._ended:
            end = self._await(sent + _SYNC_INTERVAL)
            if end - sent >= _SYNC_INTERVAL:
                os.fsync(self._descriptor)
                if hasattr(os, "posix_fadvise"):  # not on macOS
                    os.posix_fadvise(self._descriptor, 0, min(end, self._hashed), os.POSIX_FADV_DONTNEED)
                sent = end

    def _await(self, wanted: int) -> int:
        """Wait for ``wanted`` readable bytes or the end of the file; return the readable bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._readable >= wanted or self._ended)
            return self._readable

    def _hash_up_to(self, end: int) -> None:
        view = memoryview(self._buffer)
        while self._hashed < end:
            count = os.preadv(self._descriptor, [view[: min(_PIECE, end - self._hashed)]], self._hashed)
            if not count:
                raise OSError(f"Only {self._hashed} of {end} bytes can be read back.")
            self._digest.update(view[:count])
            self._hashed += count
