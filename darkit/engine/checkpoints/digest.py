"""A file that is hashed and written to the disk by other threads than the one that makes its content."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO, Self

import numpy

from darkit.engine.checkpoints.priority import Beside

_PIECE = 2**22  # bytes; smaller files need no threads
_STAGE = 2**23  # bytes per direct write
_BLOCK = 4096  # bytes; places and lengths of direct writes are multiples of it
_SYNC_INTERVAL = 2**25  # bytes between synchronisations where writes are not direct
_Data = bytes | memoryview


class DigestedFile:
    """A writable file with a sha256.

    Two threads take what `write` gets: one hashes it, the other writes it to the disk, without the page cache where the
    file system can do that, so that a save displaces no page of the training's data. Both end with the block; `finish`
    raises their errors.

    Args:
        file: An empty file, open for writing; nothing else writes to it.

    Attributes:
        size: Bytes written.
        beside: Runs what takes a core, in pieces.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        self.beside = Beside(3)  # both threads and the one that makes the content
        self._file = file
        self._descriptor = file.fileno()
        self._few: list[_Data] = []  # of a file that is small so far
        self._threads: ThreadPoolExecutor | None = None
        self._queues: list[SimpleQueue[_Data | None]] = [SimpleQueue(), SimpleQueue()]
        self._jobs: list[Future[None]] = []
        self._work: list[Callable[[], None]] = [self._hash, self._send]
        self._digest = hashlib.sha256()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        if self._threads is not None:
            self._threads.shutdown()
        self.beside.close()

    def write(self, data: _Data) -> int:
        """Add data, and return its length in bytes. A view is read later: its memory must not change until `finish`.

        Raises:
            OSError: Of the thread that writes.
        """
        if self._jobs and self._jobs[-1].done():
            self._jobs[-1].result()
        if self._threads is None:
            self._few.append(data)
        else:
            self._pass_on(data)
        count = len(data)
        self.size += count
        if self._threads is None and self.size >= _PIECE:
            self._start()
        return count

    def flush(self) -> None:
        """Do nothing: `finish` waits for all data."""

    def finish(self) -> str:
        """Wait until all data is in the file, which is not yet synchronised, and return the hexadecimal sha256.

        Raises:
            OSError: Of one of the threads, or the file is shorter than what was written.
        """
        if self._threads is None:
            for data in self._few:
                self._file.write(data)
                self._digest.update(data)
            self._file.flush()
        else:
            self._end()
            for end in [job.result for job in self._jobs] or self._work:
                end()
        found = os.fstat(self._descriptor).st_size
        if found != self.size:
            raise OSError(f"Only {found} of {self.size} bytes are in the file.")
        return self._digest.hexdigest()

    def _start(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="darkit-digest")
        try:
            self._jobs = [self._threads.submit(work) for work in self._work]
        except RuntimeError:  # at interpreter exit no thread can start: `finish` does all
            self._jobs = []
        for data in self._few:
            self._pass_on(data)
        self._few = []

    def _pass_on(self, data: _Data) -> None:
        for queue in self._queues:
            queue.put(data)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            for queue in self._queues:
                queue.put(None)

    def _hash(self) -> None:
        while (data := self._queues[0].get()) is not None:
            for piece in pieces_of(data):
                self.beside(self._digest.update, piece)

    def _send(self) -> None:
        """Write all data in blocks: direct ones, and the rest as every file is written."""
        block = mmap.mmap(-1, _STAGE)  # direct writes need memory that begins with a page
        stage = numpy.frombuffer(block, dtype=numpy.uint8)
        target = _Target(self._descriptor)
        filled = 0
        while (data := self._queues[1].get()) is not None:
            source = numpy.frombuffer(data, dtype=numpy.uint8)
            taken = 0
            while taken < len(source):
                count = min(len(source) - taken, _STAGE - filled)
                # without the interpreter's lock
                self.beside(numpy.copyto, stage[filled : filled + count], source[taken : taken + count])
                taken, filled = taken + count, filled + count
                if filled == _STAGE:
                    target.write(memoryview(block))
                    filled = 0
        target.end(memoryview(block)[:filled])


def pieces_of(data: _Data) -> Iterator[_Data]:
    """Yield data in pieces that take some milliseconds to work on."""
    if len(data) <= _PIECE:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]


class _Target:
    """An empty file, written from its beginning to its end without the page cache if possible."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._written = self._synced = 0
        self._is_direct = _set_direct(descriptor, True)

    def write(self, block: memoryview) -> None:
        """Write a block, whose length is a multiple of a page."""
        if self._is_direct:
            start = self._written
            try:
                self._write(block)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # no direct writes here, or the last one ended in the middle of a block, as on a full disk
                self._is_direct = _set_direct(self._descriptor, False)
                self._write(block[self._written - start :])
        else:
            self._write(block)
            if self._written - self._synced >= _SYNC_INTERVAL:  # so that the last synchronisation is short
                os.fsync(self._descriptor)
                if hasattr(os, "posix_fadvise"):  # not on macOS
                    os.posix_fadvise(self._descriptor, 0, self._written, os.POSIX_FADV_DONTNEED)
                self._synced = self._written

    def end(self, rest: memoryview) -> None:
        """Write the last bytes, of any length."""
        if self._is_direct:
            whole = len(rest) // _BLOCK * _BLOCK
            self.write(rest[:whole])
            _set_direct(self._descriptor, False)
            rest = rest[whole:]
        self._write(rest)

    def _write(self, data: memoryview) -> None:
        while data:
            count = os.pwrite(self._descriptor, data, self._written)
            self._written += count
            data = data[count:]


def _set_direct(descriptor: int, on: bool) -> bool:
    """Turn direct writes of an open file on or off; return whether they are on."""
    if not hasattr(os, "O_DIRECT"):  # not on macOS and Windows
        return False
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | (os.O_DIRECT if on else 0))
    except OSError:
        if not on:
            raise
        return False
    return on
