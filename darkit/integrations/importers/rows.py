"""The values of an imported run as the rows of a log.

Sources order values in their own ways. Here a row belongs to a step: values of different names logged at one step share
a row, however far apart they were logged. A name that has several values at one step has as many rows of that step, in
the order of logging; the second value of another name joins the second of them. Rows are sorted by step; the order of
logging stands in ``time``, the moment of a row's first value.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from darkit.runs.inert import inert
from darkit.runs.log import LONGEST_HEADER
from darkit.runs.records import format_header, format_value

MOST_VALUES = 20_000_000  # of a run; they are sorted in memory
MOST_COLUMNS = 5_000
LONGEST_COLUMN = 200  # characters
LONGEST_TEXT = 2_000  # characters of a text in a row
LARGEST_STEP = 2**53  # a larger one is not exact as a float, and no training gets there
MOST_CELLS = 2**31  # of the table; an empty one is a byte of the log
_AROUND = 10  # bytes around a name in the header: quotes, a comma, a number
_FIRST = ("step", "epoch", "time")
_BLOCK = 10_000  # rows that are formatted at once
_MOST_SERIES = 500  # curves that run.json declares


class _Step:
    """The rows of one step, and how many values each name has in them."""

    __slots__ = ("counts", "rows")

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()


class Rows:
    """Collect values by step.

    Attributes:
        left_out: What was not taken, as a sentence's end -> how many values.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._steps: dict[int, _Step] = {}
        self._columns: dict[str, str] = {}  # a source's name -> the column's
        self._taken: set[str] = set(_FIRST[::2])
        self._width = 0  # bytes of the header
        self._known: list[str] = []  # the columns with values, while no value is added or dropped
        self._values = 0

    def add(self, step: Any, values: Mapping[str, Any], time: float | None = None) -> None:
        """Add values that were logged together.

        Args:
            step: Their step; a value without a whole one is left out.
            values: Numbers, booleans and texts by name; None is no value.
            time: When they were logged, in Unix seconds, if it is known.
        """
        number = whole(step)
        if number is None or abs(number) > LARGEST_STEP:
            self.left_out["have no whole number as their step"] += len(values)
            return
        found = self._clean(values)
        if not found:
            return
        self._known = []
        place = self._steps.setdefault(number, _Step())
        index = max(place.counts[column] for column in found)
        if index and len(found) > 1:  # a column such as the epoch comes with the training's values and the validation's
            new = {column: value for column, value in found.items() if not place.counts[column]}
            same = all(_equal(place.rows[-1].get(column), found[column]) for column in found.keys() - new.keys())
            if new and same:
                found, index = new, max(0, len(place.rows) - 1)
        while len(place.rows) <= index:
            place.rows.append({})
        row = place.rows[index]
        row.update(found)
        place.counts.update(found.keys())
        self._values += len(found)
        if time is not None and math.isfinite(time):
            row["time"] = min(row.get("time", time), time)

    def drop_from(self, step: int, names: Collection[str] | None = None) -> None:
        """Drop the values at this step and later ones, of all names or of some: the run was restarted there."""
        self._known = []
        for number in [number for number in self._steps if number >= step]:
            if names is None:
                del self._steps[number]
                continue
            place = self._steps[number]
            for name in names:
                column = self._columns.get(name)
                if column is not None and place.counts.pop(column, 0):
                    for row in place.rows:
                        row.pop(column, None)
            place.rows = [row for row in place.rows if row.keys() - {"time"}]
            if not place.rows:
                del self._steps[number]

    def __len__(self) -> int:
        return sum(len(place.rows) for place in self._steps.values())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in sorted(self._steps):
            for row in self._steps[step].rows:
                yield {"step": step, **row}

    @property
    def last_step(self) -> int:
        """The highest step, or 0."""
        return max(self._steps, default=0)

    @property
    def times(self) -> tuple[float, float] | None:
        """The moments of the first and the last row, if any has one."""
        known = [row["time"] for place in self._steps.values() for row in place.rows if "time" in row]
        return (min(known), max(known)) if known else None

    def columns(self) -> list[str]:
        """Return the columns: step, epoch and time first, the others as they came, as many as the table may have."""
        return self._present()[: self._most_columns()]

    def _present(self) -> list[str]:
        if not self._known:
            present = {column for place in self._steps.values() for row in place.rows for column in row}
            ordered = dict.fromkeys([*_FIRST, *self._columns.values()])
            self._known = [column for column in ordered if column in present or column == "step"]
        return self._known

    def _most_columns(self) -> int:
        return max(len(_FIRST), MOST_CELLS // max(1, len(self)))

    def series(self, axes: Mapping[str, str] | None = None) -> dict[str, list[str]]:
        """Return a curve for each column with numbers, over the steps or over the value that `axes` names for it."""
        over = {self._columns.get(name): self._columns.get(axis) for name, axis in (axes or {}).items()}
        numeric: dict[str, None] = {}
        for place in self._steps.values():
            for row in place.rows:
                for column, value in row.items():
                    if column not in numeric and column not in _FIRST and is_number(value):
                        numeric[column] = None
        shown = [column for column in self.columns() if column in numeric][:_MOST_SERIES]
        return {column: [over.get(column) or "step", column] for column in shown}

    def blocks(self) -> Iterator[bytes]:
        """Yield the log as the lines of ``train_log.csv``, the header first."""
        columns = self.columns()
        yield format_header(columns).encode("utf-8", "backslashreplace")
        yield from format_rows(self, columns)

    def problems(self) -> list[str]:
        """Return a sentence for each reason why values were left out."""
        said = [f"{count:,} values {reason} and were left out." for reason, count in self.left_out.items()]
        found, kept = len(self._present()), self._most_columns()
        if found > kept:
            said.append(f"Of {found:,} columns of {len(self):,} rows, the first {kept:,} are kept.")
        return said

    def _clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in values.items():
            cell = as_cell(value)
            if cell is None:
                if value is not None:
                    self.left_out["are neither numbers nor texts"] += 1
                continue
            column = self._column(name)
            if column is None:
                self.left_out["have names beyond the columns that a log may have"] += 1
            elif self._values + len(found) >= MOST_VALUES:
                self.left_out[f"come after the first {MOST_VALUES:,}"] += 1
            else:
                found[column] = cell
        return found

    def _column(self, name: str) -> str | None:
        """Return the column for a name of the source: valid, and one that no other name has."""
        if name not in self._columns:
            column = column_name(name)
            self._width += len(column.encode("utf-8", "backslashreplace")) + _AROUND
            if len(self._columns) >= MOST_COLUMNS or self._width > LONGEST_HEADER:
                return None
            if column in _FIRST[::2]:  # the source's own clock has these
                column = f"logged_{column}"
            stem, count = column, 1
            while column in self._taken:
                count += 1
                column = f"{stem}-{count}"
            self._taken.add(column)
            self._columns[name] = column
        return self._columns[name]


def format_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[bytes]:
    """Yield rows as lines of a log, many at a time."""
    lines: list[str] = []
    for row in rows:
        lines.append(",".join([format_value(row.get(column)) for column in columns]) + "\n")
        if len(lines) >= _BLOCK:
            yield "".join(lines).encode("utf-8", "backslashreplace")
            lines = []
    yield "".join(lines).encode("utf-8", "backslashreplace")


def column_name(name: str) -> str:
    """Return a name as a column can have it: printable, on one line, bounded."""
    column = inert(name) or "unnamed"
    if len(column) <= LONGEST_COLUMN:
        return column
    return f"{column[: LONGEST_COLUMN - 9]}-{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def as_cell(value: Any) -> Any:
    """Return a value as a row can hold it, or None."""
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else _as_float(value)
    return value[:LONGEST_TEXT] if isinstance(value, str) else None


def is_number(value: Any) -> bool:
    """Return whether a value is a number and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: Any) -> int | None:
    """Return a number without a fraction as an int, else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def flatten(values: Mapping[str, Any], prefix: str = "", deepest: int = 20) -> dict[str, Any]:
    """Return nested mappings as one, with dots between the names; lists stay as they are."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and deepest and "_type" not in value:
            found.update(flatten(value, f"{name}.", deepest - 1))
        else:
            found[name] = value
    return found


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))
