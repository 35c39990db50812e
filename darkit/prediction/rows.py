"""Tables to predict for, read and written: ``.csv``, ``.npy``, ``.json`` and ``.jsonl``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError, DataError, listing
from darkit.runs import files
from darkit.runs.inert import format_json

ENDINGS = (".csv", ".npy", ".json", ".jsonl")
TEXT = "text"  # default name of a column of texts


@dataclass
class Rows:
    """The rows of a table.

    Attributes:
        where: Name of the table in errors.
        names: Names of the columns; empty if they have none.
        values: The rows, each with a value for each column.
        array: The rows as a NumPy array with more than two dimensions, instead of `values`; else None.
    """

    where: str
    names: list[str] = field(default_factory=list)
    values: list[list[Any]] = field(default_factory=list)
    array: Any = None

    def column(self, name: str) -> list[Any]:
        """Return the values of a column. Raises `DataError` if it is missing."""
        if name not in self.names:
            known = f"Available: {listing(self.names)}" if self.names else "Its columns have no names"
            raise DataError(f"{self.where} has no column {name!r}, which the run needs. {known}.")
        index = self.names.index(name)
        return [row[index] for row in self.values]

    def numbers(self, features: Sequence[str], width: int | None) -> list[list[float]]:
        """Return the model's inputs (rows, features).

        Args:
            features: The feature columns of the run; empty if unknown, then all columns are features.
            width: Number of features, or None if unknown.

        Raises:
            DataError: A column is missing, the number of columns is wrong, or a value is not a number.
        """
        if features and self.names:
            columns = [self.column(name) for name in features]
        else:
            columns = [list(column) for column in zip(*self.values, strict=True)]
            wanted = len(features) or width
            if wanted is not None and len(columns) != wanted:
                raise DataError(f"{self.where} has {_count(len(columns))}, but the run's model takes {wanted}.")
        names = list(features) or self.names or [str(index) for index in range(len(columns))]
        checked = [
            [self._number(value, name, row) for row, value in enumerate(column)]
            for name, column in zip(names, columns, strict=True)
        ]
        return [list(row) for row in zip(*checked, strict=True)]

    def _number(self, value: Any, name: str, row: int) -> float:
        try:
            number = math.nan if value is None or isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"{self.where}, row {row + 1}: the column {name!r} must be a number, not {value!r}.")
        return number


def is_table(word: str) -> bool:
    """Return whether an input names a table file."""
    return (
        len(word) < 4096 and "\n" not in word and Path(word).suffix in ENDINGS and word.lstrip()[:1] not in ("[", "{")
    )


def read_rows(path: Path) -> Rows:
    """Read a file.

    Raises:
        DataError: It is missing, unreadable or empty, or its rows differ in length.
    """
    try:
        if path.suffix == ".npy":
            return _read_array(path)
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"The file {path} does not exist.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 at byte {error.start}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if path.suffix == ".csv":
        return _read_csv(path, text)
    lines = path.suffix == ".jsonl"
    rows = rows_of(_read_lines(path, text) if lines else _loads(str(path), text), str(path))
    if rows is None:
        what = "a row on every line" if lines else "a list of rows"
        raise DataError(f"{path} must hold {what}, each a list of numbers or an object with a value per column.")
    return rows


def rows_of(value: Any, where: str) -> Rows | None:
    """Return rows of a JSON value: a list of objects, of texts, or of lists of one length; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, str) for item in value):
        return Rows(where, [TEXT], [[item] for item in value])
    if all(isinstance(item, Mapping) for item in value):
        names = [str(name) for name in value[0]]
        for number, item in enumerate(value):
            missing = [name for name in names if name not in item]
            if missing:
                raise DataError(f"{where}, row {number + 1} has no {missing[0]!r}, which the first row has.")
        return Rows(where, names, [[item[name] for name in names] for item in value])
    if all(isinstance(item, list) and item and not isinstance(item[0], list) for item in value):
        _check_lengths(where, value)
        return Rows(where, [], value)
    return None


def write_rows(path: Path, rows: Rows) -> None:
    """Write a file atomically.

    Raises:
        ConfigError: As `check_output`.
        StorageError: The file system refused.
    """
    check_output(path)
    if path.suffix == ".npy":
        files.write_bytes(path, _as_array(rows))
    else:
        files.write_text(path, _WRITERS[path.suffix](rows))


def check_output(path: Path) -> None:
    """Check the name of an output file before the model runs. Raises `ConfigError` for its suffix or folder."""
    if path.suffix not in ENDINGS:
        raise ConfigError(
            f"The output file must end with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, but is {path.name!r}."
        )
    if not path.parent.is_dir():
        raise ConfigError(f"Cannot write {path.name}: the folder {path.parent} does not exist.")


def as_csv(rows: Rows) -> str:
    """Return rows as CSV with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows.names)
    writer.writerows(rows.values)
    return out.getvalue()


def as_json(rows: Rows) -> str:
    """Return rows as a JSON list of objects."""
    return format_json([dict(zip(rows.names, row, strict=True)) for row in rows.values], indent=None)


def _as_lines(rows: Rows) -> str:
    objects = (dict(zip(rows.names, row, strict=True)) for row in rows.values)
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects)


_WRITERS: dict[str, Callable[[Rows], str]] = {
    ".csv": as_csv,
    ".json": lambda rows: as_json(rows) + "\n",
    ".jsonl": _as_lines,
}


def _loads(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}.") from error


def _read_lines(path: Path, text: str) -> list[Any]:
    lines = enumerate(text.split("\n"), 1)
    return [_loads(f"{path}, line {number},", line) for number, line in lines if line.strip()]


def _read_csv(path: Path, text: str) -> Rows:
    names, *values = [row for row in csv.reader(io.StringIO(text)) if row] or [[]]
    if not values:
        raise DataError(f"{path} has no rows. Its first line must name the columns, and each further line is a row.")
    for number, row in enumerate(values):
        if len(row) != len(names):
            raise DataError(f"{path}, row {number + 1} has {_count(len(row))}, but the first line names {len(names)}.")
    return Rows(str(path), [name.strip() for name in names], [list(row) for row in values])


def _read_array(path: Path) -> Rows:
    import numpy

    try:
        array = numpy.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is not a NumPy array file: {error}.") from error
    if array.ndim < 2 or not array.size or array.dtype.kind not in "iufb":
        raise DataError(f"{path} must hold numbers (rows, columns), not {array.dtype}{list(array.shape)}.")
    if array.ndim > 2:
        return Rows(str(path), array=array)
    return Rows(str(path), [], array.astype(float).tolist())


def _as_array(rows: Rows) -> bytes:
    import numpy

    values = numpy.array(rows.values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    out = io.BytesIO()
    numpy.save(out, values, allow_pickle=False)
    return out.getvalue()


def _check_lengths(where: str, values: Sequence[Sequence[Any]]) -> None:
    for number, row in enumerate(values):
        if len(row) != len(values[0]):
            raise DataError(f"{where}, row {number + 1} has {_count(len(row))}, but the first has {len(values[0])}.")


def _count(columns: int) -> str:
    return f"{columns} column{'' if columns == 1 else 's'}"
