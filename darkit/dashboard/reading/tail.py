"""A log read as it grows: only new bytes, only whole lines, into columns of numbers.

`darkit.runs.table` says which lines are rows. A field that is no number is a missing value.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darkit.dashboard.reading.columns import Columns, Flags, Numbers, Rows
from darkit.runs.log import LONGEST_HEADER
from darkit.runs.safe import UnreadableError, open_regular, read_at
from darkit.runs.table import column_names, read_numbers

BLOCK = 8 * 2**20  # bytes read at a time; also the longest line that is taken
MOST_COLUMNS = 2_000
MOST_CELLS = 96 * 2**20  # rows times columns of one log; 768 MiB of numbers
_TOGETHER = 2**20  # bytes of one log that wait to be parsed with others
_THREADS = min(4, os.cpu_count() or 1)
_MARK = 64  # bytes before the offset that must still be the same


@dataclass(frozen=True)
class Table:
    """What was read of a log at one moment; it stays as it is while the log goes on.

    Attributes:
        columns: The header.
        content: The rows.
        generation: Grows when the file was replaced or shrank, so that old row numbers mean nothing.
        bad: How many whole lines were no rows.
        problem: Why the log cannot be read (further), or empty.
    """

    columns: tuple[str, ...]
    content: Rows
    generation: int
    bad: int
    problem: str

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.content.count

    @property
    def filled(self) -> list[str]:
        """The columns with a number, NaN or infinity in any row."""
        return [name for name, filled in zip(self.columns, self.content.filled, strict=True) if filled]

    def column(self, name: str, first: int = 0) -> Numbers | None:
        """The numbers of a column from a row on, NaN for a missing value; None for an unknown column."""
        return self.content.column(self.columns.index(name), first) if name in self.columns else None

    def start(self, name: str) -> float | None:
        """The first number of a column, looked for at the beginning of the log alone; None without one."""
        if name not in self.columns:
            return None
        values = self.content.beginning(self.columns.index(name))
        known = np.flatnonzero(np.isfinite(values))
        return float(values[known[0]]) if len(known) else None

    def odd(self, name: str, first: int = 0) -> Flags:
        """Whether a field of a column, from a row on, really said NaN or infinity, rather than nothing."""
        return self.content.odd_of(self.columns.index(name), first)

    def ends_odd(self, name: str) -> bool:
        """Whether the last value of a column is NaN or infinite."""
        return self.content.ends_odd(self.columns.index(name))


class LogTail:
    """Follow one log file.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._generation = 0
        self._forget()

    def _forget(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._mark = b""
        self._header = b""
        self._columns: tuple[str, ...] = ()
        self._content = Columns(0)
        self._bad = 0
        self._problem = ""
        self._overlong = False

    @property
    def size(self) -> int:
        """Bytes of memory that its numbers take."""
        return self._content.size

    def table(self) -> Table:
        """Return the rows read so far, without reading."""
        with self._lock:
            return self._table()

    def refresh(self) -> Table:
        """Read new rows, and return all."""
        with self._lock:
            for data in self._follow():
                self._append(*parse(data, self._header))
            return self._table()

    def _follow(self) -> Iterator[bytes]:
        """Yield new data in blocks of whole lines; a failed read is kept as the problem."""
        try:
            with open_regular(self.path) as descriptor:
                yield from self._blocks(descriptor)
        except FileNotFoundError:
            if self._identity is not None:
                self._start_again()
        except UnreadableError as error:
            self._problem = str(error)
        except OSError as error:
            self._problem = f"{self.path.name}: {error.strerror}"

    def _table(self) -> Table:
        return Table(self._columns, self._content.rows(), self._generation, self._bad, self._problem)

    def _start_again(self) -> None:
        self._generation += 1
        self._forget()

    def _blocks(self, descriptor: int) -> Iterator[bytes]:
        state = os.fstat(descriptor)
        identity = (state.st_dev, state.st_ino)
        if self._identity is not None and (
            identity != self._identity
            or state.st_size < self._offset
            or read_at(descriptor, len(self._mark), self._offset - len(self._mark)) != self._mark
        ):
            self._start_again()
        self._identity = identity
        self._problem = ""
        if not self._columns and not self._read_header(descriptor):
            return
        while self._offset < state.st_size:
            block = read_at(descriptor, min(BLOCK, state.st_size - self._offset), self._offset)
            start, end = 0, block.rfind(b"\n") + 1
            if self._overlong and end:
                start, self._overlong = block.find(b"\n") + 1, False
                self._bad += 1
            if not end:
                if len(block) < BLOCK:
                    return
                self._overlong, start, end = True, len(block), len(block)  # dropped up to the next line feed
            self._offset += end
            self._mark = block[max(0, end - _MARK) : end]
            if start < end:
                yield block[start:end]
            if self._content.count * len(self._columns) > MOST_CELLS:
                self._problem = f"{self.path.name}: too large; shown up to row {self._content.count}"
                return

    def _read_header(self, descriptor: int) -> bool:
        start = read_at(descriptor, LONGEST_HEADER, 0)
        end = start.find(b"\n") + 1
        if not end:
            if len(start) == LONGEST_HEADER:
                self._problem = f"{self.path.name}: its first line is too long to be a header"
            return False
        names = column_names(start[:end])
        if len(names) > MOST_COLUMNS:
            self._problem = f"{self.path.name}: it has more than {MOST_COLUMNS} columns"
            return False
        self._header, self._columns = start[:end], tuple(names)
        self._content = Columns(len(names))
        self._offset, self._mark = end, start[max(0, end - _MARK) : end]
        return True

    def _append(self, values: Numbers, odd: Flags, bad: int) -> None:
        self._bad += bad
        self._content.append(values, odd)


def refresh_together(tails: Sequence[LogTail]) -> None:
    """Read the new rows of several logs.

    Short pieces with the same header are parsed at once, which saves time; long ones in threads, as the
    parser lets others run meanwhile.
    """
    with ExitStack() as stack:
        for tail in sorted(set(tails), key=id):  # always in the same order, so that two callers never wait in a ring
            stack.enter_context(tail._lock)
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))  # starts a thread only when something is submitted
        long: list[Future[None]] = []
        waiting: dict[bytes, list[tuple[LogTail, bytes]]] = {}
        for tail in tails:
            blocks = tail._follow()
            data = next(blocks, b"")
            if len(data) > _TOGETHER:
                long.append(pool.submit(_append_all, tail, data, blocks))
            elif data:
                waiting.setdefault(tail._header, []).append((tail, data))
                for more in blocks:  # after an overlong line
                    waiting[tail._header].append((tail, more))
        _append_waiting(waiting)
        for one in long:
            one.result()


def _append_all(tail: LogTail, data: bytes, blocks: Iterator[bytes]) -> None:
    tail._append(*parse(data, tail._header))
    for more in blocks:
        tail._append(*parse(more, tail._header))


def _append_waiting(waiting: dict[bytes, list[tuple[LogTail, bytes]]]) -> None:
    for header, parts in waiting.items():
        values, odd, bad = parse(b"".join(data for _, data in parts), header)
        if bad:  # whose lines they were is not known: each by itself
            for tail, data in parts:
                tail._append(*parse(data, header))
            continue
        start = 0
        for tail, data in parts:
            end = start + data.count(b"\n")
            tail._append(values[:, start:end], odd[:, start:end], 0)
            start = end
    waiting.clear()


def parse(data: bytes, header: bytes) -> tuple[Numbers, Flags, int]:
    """Turn whole lines below a header into numbers.

    Returns:
        Numbers (columns, rows), which of them said NaN or infinity, and how many lines were no rows.
    """
    frame, bad = read_numbers(data, header)
    values = np.empty((frame.width, frame.height))
    odd = np.zeros((frame.width, frame.height), dtype=bool)
    for index, series in enumerate(frame.iter_columns()):
        values[index] = series.to_numpy()
        finite = np.isfinite(values[index])
        if not finite.all():
            odd[index] = ~finite & series.is_not_null().to_numpy()
    return values, odd, bad
