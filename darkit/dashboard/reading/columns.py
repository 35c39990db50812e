"""Columns of numbers that grow at the end and take little memory.

Rows are sealed in chunks. In a sealed chunk a column that counts up evenly (a step), is constant (an epoch, a rate) or
is mostly empty (a rare evaluation) takes almost nothing; any other one is stored as doubles. Values are returned bit
for bit, except for the bits of a NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

CHUNK = 2**15  # rows
_LAST_ROWS = 5_000  # in which most columns have a value
_SELDOM = 4  # a column is mostly empty if at most one in so many rows has a number


@dataclass(frozen=True)
class _Even:
    """Evenly spaced numbers."""

    first: float
    distance: float
    odd: Flags | None
    nbytes: int = 0

    def write(self, out: Numbers) -> None:
        out[:] = self.first + self.distance * np.arange(len(out))


@dataclass(frozen=True)
class _Sparse:
    """Numbers at some places, NaN elsewhere."""

    places: NDArray[np.uint16]
    numbers: Numbers
    odd: Flags | None

    @property
    def nbytes(self) -> int:
        return self.places.nbytes + self.numbers.nbytes

    def write(self, out: Numbers) -> None:
        out[:] = np.nan
        out[self.places] = self.numbers


@dataclass(frozen=True)
class _Full:
    """Numbers as they are."""

    numbers: Numbers
    odd: Flags | None

    @property
    def nbytes(self) -> int:
        return self.numbers.nbytes

    def write(self, out: Numbers) -> None:
        out[:] = self.numbers


_Part = _Even | _Sparse | _Full


@dataclass(frozen=True)
class Rows:
    """The rows at one moment; adding more does not change them.

    Attributes:
        sealed: The parts of each sealed chunk, one per column.
        values: The numbers (columns, rows) of the open chunk; NaN for empty fields.
        odd: Whether a field (columns, rows) of the open chunk was NaN or infinity rather than empty.
        filled: Whether any row has a number, NaN or infinity in a column (columns,).
    """

    sealed: Sequence[Sequence[_Part]]
    values: Numbers
    odd: Flags
    filled: Flags

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.sealed) * CHUNK + int(self.values.shape[1])

    def column(self, index: int, first: int = 0) -> Numbers:
        """Return the numbers of a column, from a row on."""
        if first >= len(self.sealed) * CHUNK:
            return self.values[index, first - len(self.sealed) * CHUNK :]
        start = first // CHUNK
        out = np.empty(self.count - start * CHUNK)
        for place, parts in enumerate(self.sealed[start:]):
            parts[index].write(out[place * CHUNK : (place + 1) * CHUNK])
        out[(len(self.sealed) - start) * CHUNK :] = self.values[index]
        return out[first - start * CHUNK :]

    def beginning(self, index: int) -> Numbers:
        """Return the numbers of a column in the first chunk, at little cost however many rows there are."""
        out: Numbers = np.empty(CHUNK) if self.sealed else self.values[index]
        if self.sealed:
            self.sealed[0][index].write(out)
        return out

    def odd_of(self, index: int, first: int = 0) -> Flags:
        """Return where a column was NaN or infinity rather than empty, from a row on."""
        if first >= len(self.sealed) * CHUNK:
            return self.odd[index, first - len(self.sealed) * CHUNK :]
        start = first // CHUNK
        out = np.zeros(self.count - start * CHUNK, dtype=bool)
        for place, parts in enumerate(self.sealed[start:]):
            odd = parts[index].odd
            if odd is not None:
                out[place * CHUNK : (place + 1) * CHUNK] = odd
        out[(len(self.sealed) - start) * CHUNK :] = self.odd[index]
        return out[first - start * CHUNK :]

    def ends_odd(self, index: int) -> bool:
        """Return whether the last value of a column is NaN or infinite."""
        for first in (max(0, self.values.shape[1] - _LAST_ROWS), 0):
            last = _last_value(self.values[index, first:], self.odd[index, first:])
            if last is not None:
                return last
        values: Numbers = np.empty(CHUNK)
        for parts in reversed(self.sealed):
            parts[index].write(values)
            last = _last_value(values, parts[index].odd)
            if last is not None:
                return last
        return False


class Columns:
    """Rows that grow at the end."""

    def __init__(self, width: int) -> None:
        self._sealed: list[tuple[_Part, ...]] = []
        self._sealed_size = 0
        self._values: Numbers = np.empty((width, 0))
        self._odd: Flags = np.empty((width, 0), dtype=bool)
        self._used = 0
        self._filled: Flags = np.zeros(width, dtype=bool)

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self._sealed) * CHUNK + self._used

    @property
    def size(self) -> int:
        """Bytes of memory of the numbers."""
        return self._sealed_size + self._values.nbytes + self._odd.nbytes

    def rows(self) -> Rows:
        """Return all current rows."""
        return Rows(tuple(self._sealed), self._values[:, : self._used], self._odd[:, : self._used], self._filled.copy())

    def append(self, values: Numbers, odd: Flags) -> None:
        """Add rows: numbers and flags, both (columns, rows)."""
        for index in np.flatnonzero(~self._filled):
            self._filled[index] = odd[index].any() or not np.isnan(values[index]).all()
        start, end = 0, values.shape[1]
        while start < end:
            if not self._used and end - start >= CHUNK:
                self._seal(values[:, start : start + CHUNK], odd[:, start : start + CHUNK])
                start += CHUNK
                continue
            taken = min(CHUNK - self._used, end - start)
            self._make_room(self._used + taken)
            self._values[:, self._used : self._used + taken] = values[:, start : start + taken]
            self._odd[:, self._used : self._used + taken] = odd[:, start : start + taken]
            self._used += taken
            start += taken
            if self._used == CHUNK:
                self._seal(self._values, self._odd)
                self._values, self._odd = self._values[:, :0].copy(), self._odd[:, :0].copy()
                self._used = 0

    def _make_room(self, needed: int) -> None:
        room = self._values.shape[1]
        if needed > room:
            room = min(CHUNK, max(needed, room * 2))
            values, odd = np.empty((len(self._values), room)), np.empty((len(self._odd), room), dtype=bool)
            values[:, : self._used] = self._values[:, : self._used]
            odd[:, : self._used] = self._odd[:, : self._used]
            self._values, self._odd = values, odd

    def _seal(self, values: Numbers, odd: Flags) -> None:
        parts = tuple(_pack(values[index], odd[index]) for index in range(len(values)))
        self._sealed.append(parts)
        self._sealed_size += sum(part.nbytes + (0 if part.odd is None else part.odd.nbytes) for part in parts)


def _last_value(values: Numbers, odd: Flags | None) -> bool | None:
    """Return whether the last value of some rows is NaN or infinite; None for rows without any."""
    known = np.flatnonzero(np.isfinite(values) if odd is None else odd | np.isfinite(values))
    return None if not len(known) else odd is not None and bool(odd[known[-1]])


def _pack(values: Numbers, odd: Flags) -> _Part:
    flags = odd.copy() if odd.any() else None
    places = np.flatnonzero(~np.isnan(values))
    if len(places) * _SELDOM <= len(values):
        return _Sparse(places.astype(np.uint16), values[places], flags)
    first, distance = float(values[0]), float(values[1]) - float(values[0])
    if np.isfinite(values).all() and np.isfinite(distance):
        with np.errstate(over="ignore", invalid="ignore"):
            even = first + distance * np.arange(len(values))
        if np.array_equal(even.view(np.int64), np.ascontiguousarray(values).view(np.int64)):
            return _Even(first, distance, flags)
    return _Full(values.copy(), flags)
