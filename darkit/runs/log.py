"""The log of a run, `train_log.csv`: written and read here and nowhere else.

The format is CSV after RFC 4180 with ``\\n`` between lines and a header. Rows are only ever appended, whole lines at a
time; a reader trusts whole lines only. A missing value is an empty field.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.errors import LogError, StorageError, nearest
from darkit.runs import files

if TYPE_CHECKING:
    import polars

DEFAULT_COLUMNS = ("step", "epoch", "time", "lr", "train_loss", "val_loss")
Row = Mapping[str, Any]


class CsvLog:
    """Appends rows to a log.

    Args:
        path: The file. An existing one is continued with its own columns.
        columns: The columns a new file starts with.
        fixed: Whether a row with another column is refused; otherwise the column is added.

    Raises:
        StorageError: The file system refused.
    """

    def __init__(self, path: Path, columns: Sequence[str] = DEFAULT_COLUMNS, *, fixed: bool = False) -> None:
        self.path = path
        self.fixed = fixed
        existing = _header(path)
        self.columns = existing or list(columns)
        if existing:
            self._cut_torn_line()
        else:
            files.write_text(path, _lines([self.columns]))

    def check(self, keys: Iterable[str]) -> None:
        """Raises `LogError` when the columns are fixed and a key is not one of them."""
        if not self.fixed:
            return
        for key in keys:
            if key not in self.columns:
                raise LogError(f"The log has no column {key!r}; {nearest(key, self.columns)}.")

    def append(self, rows: Sequence[Row]) -> None:
        """Appends rows in one write; columns they bring that are new are added to the whole file first."""
        new = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in self.columns]
        if new:
            self.check(new)
            self._rewrite([*self.columns, *new], _records(self.path))
        self._write(_lines([_format(row.get(column)) for column in self.columns] for row in rows))

    def cut_after(self, step: int) -> None:
        """Drops the rows of later steps, by a rewrite beside and a replace: a resumed run writes them again."""
        records = _records(self.path)
        kept = [record for record in records if not (record.get("step") or "").isdigit() or int(record["step"]) <= step]
        if len(kept) < len(records):
            self._rewrite(self.columns, kept)

    def _rewrite(self, columns: list[str], records: Iterable[Mapping[str, str]]) -> None:
        rows = [[record.get(column) or "" for column in columns] for record in records]
        files.write_text(self.path, _lines([columns, *rows]))
        self.columns = columns

    def _write(self, text: str) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                data = memoryview(text.encode())
                while data:
                    data = data[os.write(descriptor, data) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError(error.errno, f"Cannot write the log {self.path}: {error.strerror}") from error

    def _cut_torn_line(self) -> None:
        whole = _whole_lines(self.path)
        if len(whole) < self.path.stat().st_size:
            os.truncate(self.path, len(whole))


def read_log(path: Path) -> polars.DataFrame:
    """Reads a log's whole lines.

    Returns:
        One row per logged step; an empty frame when there is no log yet.
    """
    import polars

    try:
        whole = _whole_lines(path)
    except FileNotFoundError:
        return polars.DataFrame()
    if not whole:
        return polars.DataFrame()
    frame = polars.read_csv(io.BytesIO(whole), infer_schema_length=None)
    unused = [column.name for column in frame.iter_columns() if column.dtype == polars.String and not column.count()]
    return frame.with_columns(polars.col(unused).cast(polars.Float64))


def last_row(path: Path) -> dict[str, str]:
    """Reads the header and the last whole line of a log, without the rest: value by column, empty ones left out."""
    header = _header(path)
    if not header:
        return {}
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65536))
        tail = file.read()
    lines = tail[: tail.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
    if size <= 65536:
        lines = lines[1:]
    if not lines:
        return {}
    return {key: value for key, value in zip(header, next(csv.reader([lines[-1]])), strict=False) if value}


def _header(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            first = file.readline()
    except FileNotFoundError:
        return []
    return next(csv.reader([first.decode()])) if first.endswith(b"\n") else []


def _whole_lines(path: Path) -> bytes:
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1]


def _records(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_whole_lines(path).decode(), newline="")))


def _lines(rows: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _format(value: Any) -> str:
    """Text of one field: numbers so that they read back equal, text on one line, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return "NaN"  # the one spelling that polars takes for a number
    if isinstance(value, float | int):
        return repr(value)
    return " ".join(str(value).split())
