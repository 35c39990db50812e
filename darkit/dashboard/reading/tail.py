"""A log read as it grows: only new bytes, only whole lines, into columns of numbers.

A line is what ends with a line feed; quotes group the fields of one line, never several lines. A line with another
number of fields than the header is no row: it is counted and left out. A field that is no number is a missing value.
"""

from __future__ import annotations

import csv
import io
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from darkit.dashboard.reading.columns import Columns, Flags, Numbers, Rows
from darkit.runs.safe import UnreadableError, open_regular

BLOCK = 8 * 2**20  # bytes read at a time; also the longest line that is taken
LONGEST_HEADER = 2**18  # bytes
MOST_COLUMNS = 2_000
MOST_CELLS = 96 * 2**20  # rows times columns of one log; 768 MiB of numbers
_TOGETHER = 2**20  # bytes of one log that wait to be parsed with others
_THREADS = min(4, os.cpu_count() or 1)
_MARK = 64  # bytes before the offset that must still be the same
_NUMBER = re.compile(rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf|infinity)", re.IGNORECASE)
_ODD_BYTES = (b'"', b"\r", b"\0", b"\t", b" ")


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

    def column(self, name: str, first: int = 0) -> Numbers | None:
        """The numbers of a column from a row on, NaN where there is none, or None where the log has no such column."""
        return self.content.column(self.columns.index(name), first) if name in self.columns else None

    def odd(self, name: str, first: int = 0) -> Flags:
        """Whether a field of a column, from a row on, really said NaN or infinity, rather than nothing."""
        return self.content.odd_of(self.columns.index(name), first)


class LogTail:
    """Follows one log file.

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
        """Returns what was read so far, without reading."""
        with self._lock:
            return self._table()

    def refresh(self) -> Table:
        """Reads what is new and returns everything."""
        with self._lock:
            for data in self._follow():
                self._take(*parse(data, len(self._columns)))
            return self._table()

    def _follow(self) -> Iterator[bytes]:
        """Yields what is new, in blocks of whole lines; what cannot be read becomes the problem."""
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
            or os.pread(descriptor, len(self._mark), self._offset - len(self._mark)) != self._mark
        ):
            self._start_again()
        self._identity = identity
        self._problem = ""
        if not self._columns and not self._read_header(descriptor):
            return
        while self._offset < state.st_size:
            block = os.pread(descriptor, min(BLOCK, state.st_size - self._offset), self._offset)
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
        start = os.pread(descriptor, LONGEST_HEADER, 0)
        end = start.find(b"\n") + 1
        if not end:
            if len(start) == LONGEST_HEADER:
                self._problem = f"{self.path.name}: its first line is too long to be a header"
            return False
        try:
            names = next(csv.reader([start[: end - 1].decode("utf-8", "replace").rstrip("\r")]), [])
        except csv.Error:
            names = []
        if not names or len(names) > MOST_COLUMNS:
            self._problem = f"{self.path.name}: its first line is no header"
            return False
        self._columns = tuple(names)
        self._content = Columns(len(names))
        self._offset, self._mark = end, start[max(0, end - _MARK) : end]
        return True

    def _take(self, values: Numbers, odd: Flags, bad: int) -> None:
        self._bad += bad
        self._content.append(values, odd)


def refresh_together(tails: Sequence[LogTail]) -> None:
    """Reads what is new of several logs.

    Little pieces with the same number of columns are parsed at once, which saves time; long ones in threads, as the
    parser lets others run meanwhile.
    """
    with ExitStack() as stack:
        for tail in sorted(set(tails), key=id):  # always in the same order, so that two callers never wait in a ring
            stack.enter_context(tail._lock)
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))  # starts a thread only when something is submitted
        long: list[Future[None]] = []
        waiting: dict[int, list[tuple[LogTail, bytes]]] = {}
        for tail in tails:
            blocks = tail._follow()
            data = next(blocks, b"")
            if len(data) > _TOGETHER:
                long.append(pool.submit(_take_all, tail, data, blocks))
            elif data:
                waiting.setdefault(len(tail._columns), []).append((tail, data))
                for more in blocks:  # after an overlong line
                    waiting[len(tail._columns)].append((tail, more))
        _take_waiting(waiting)
        for one in long:
            one.result()


def _take_all(tail: LogTail, data: bytes, blocks: Iterator[bytes]) -> None:
    tail._take(*parse(data, len(tail._columns)))
    for more in blocks:
        tail._take(*parse(more, len(tail._columns)))


def _take_waiting(waiting: dict[int, list[tuple[LogTail, bytes]]]) -> None:
    for columns, parts in waiting.items():
        values, odd, bad = parse(b"".join(data for _, data in parts), columns)
        if bad:  # whose lines they were is not known: each by itself
            for tail, data in parts:
                tail._take(*parse(data, columns))
            continue
        start = 0
        for tail, data in parts:
            end = start + data.count(b"\n")
            tail._take(values[:, start:end], odd[:, start:end], 0)
            start = end
    waiting.clear()


def parse(data: bytes, columns: int) -> tuple[Numbers, Flags, int]:
    """Turns whole lines into numbers.

    Args:
        data: Bytes that end with a line feed, or none.
        columns: How many fields a row has.

    Returns:
        Numbers (columns, rows), which of them said NaN or infinity, and how many lines were no rows.
    """
    if not data:
        return np.empty((columns, 0)), np.empty((columns, 0), dtype=bool), 0
    if _looks_plain(data, columns):
        try:
            return (*_parse_plain(data, columns), 0)
        except pl.exceptions.PolarsError:  # a line has more fields than the header
            pass
    return _parse_any(data, columns)


def _looks_plain(data: bytes, columns: int) -> bool:
    """Says whether there is nothing but unquoted ASCII and, over all lines, the right number of fields.

    Together with a parser that refuses a line with too many fields that means: in every line.
    """
    if columns < 2 or not data.isascii() or any(odd in data for odd in _ODD_BYTES):
        return False
    characters = np.frombuffer(data, np.uint8)
    return int(np.count_nonzero(characters == 44)) == int(np.count_nonzero(characters == 10)) * (columns - 1)


def _parse_plain(data: bytes, columns: int) -> tuple[Numbers, Flags]:
    frame = pl.read_csv(
        io.BytesIO(data),
        has_header=False,
        quote_char=None,
        schema={str(index): pl.Float64 for index in range(columns)},
        ignore_errors=True,
        truncate_ragged_lines=False,
    )
    values = np.empty((columns, frame.height))
    odd = np.zeros((columns, frame.height), dtype=bool)
    for index, series in enumerate(frame.iter_columns()):
        values[index] = series.to_numpy()
        finite = np.isfinite(values[index])
        if not finite.all():
            odd[index] = ~finite & series.is_not_null().to_numpy()
    return values, odd


def _parse_any(data: bytes, columns: int) -> tuple[Numbers, Flags, int]:
    rows, bad = [], 0
    for line in data.split(b"\n")[:-1]:
        fields = _fields(line.removesuffix(b"\r"))
        if len(fields) == columns and (columns > 1 or fields[0]):
            rows.append([_number(field) for field in fields])
        else:
            bad += 1
    values = np.array(rows, dtype=np.float64).reshape(len(rows), columns).T
    missing = np.array([[value is None for value in row] for row in rows], dtype=bool).reshape(len(rows), columns).T
    return np.ascontiguousarray(values), ~np.isfinite(values) & ~missing, bad


def _fields(line: bytes) -> list[bytes]:
    if b'"' not in line:
        return line.split(b",")
    try:
        found = next(csv.reader([line.decode("latin-1")]), [])
    except csv.Error:  # a field too long, or a quote that is not one
        return []
    return [field.encode("latin-1", "replace") for field in found]


def _number(field: bytes) -> float | None:
    field = field.strip(b" ")
    return float(field) if _NUMBER.fullmatch(field) else None
