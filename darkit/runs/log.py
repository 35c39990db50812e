r"""The log of a run, `train_log.csv`: written and read here and nowhere else.

The format is CSV after RFC 4180 with a header and ``\n`` between lines. Every record is one line: line breaks within
text become spaces, so that a reader can trust each whole line whatever stands in the others. Text is quoted, numbers
are not, and a missing value is an empty field. Rows are only ever appended, whole lines at a time.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.errors import LogError, StorageError, nearest
from darkit.runs import files
from darkit.runs.records import check_column, format_header, format_rows, parse_fields, parse_header, parse_row
from darkit.runs.safe import UnreadableError, open_for_writing, open_regular
from darkit.runs.table import read_table

if TYPE_CHECKING:
    import polars

DEFAULT_COLUMNS = ("step", "epoch", "time", "lr", "train_loss", "val_loss")
_TAIL = 65536  # bytes; the end of a log's last line is looked for in blocks of so many
_RECENT = 131072  # bytes; the last values of a log are looked for in so many
LONGEST_LOG = 2**32  # bytes
LONGEST_HEADER = 2**20  # bytes
MOST_COLUMNS = 20_000  # a table of more takes minutes
Row = Mapping[str, Any]
logger = logging.getLogger(__name__)


class CsvLog:
    """Append rows to a log.

    Args:
        path: The file. An existing one is continued with its own columns; a torn last line is cut off.
        columns: The columns a new file starts with.
        fixed: Whether a row with another column is refused; otherwise the column is added. A continued file gets those
            of the fixed columns that it lacks.

    Raises:
        LogError: A column's name is not text on one line.
        StorageError: The file system refused.
    """

    def __init__(self, path: Path, columns: Sequence[str] = DEFAULT_COLUMNS, *, fixed: bool = False) -> None:
        self.path = path
        self.fixed = fixed
        wanted = list(dict.fromkeys(columns))
        for column in wanted:
            check_column(column)
        existing = self._columns_on_disk()
        self._set_columns(existing or wanted)
        if not existing:
            files.write_text(path, format_header(self.columns))
        elif fixed:
            self._add_columns([column for column in wanted if column not in self._known])

    def check(self, keys: Collection[str]) -> None:
        """Raise `LogError` when one of the keys cannot be a column, or is not one and the columns are fixed."""
        if self._known.issuperset(keys):
            return
        new = [key for key in keys if key not in self._known]
        for key in new:
            check_column(key)
            if self.fixed:
                raise LogError(f"The log has no column {key!r}. {nearest(key, self.columns)}.")
        if len(self._known) + len(new) > MOST_COLUMNS:  # no reader would take it
            raise LogError(
                f"The log has {len(self._known)} columns and can have {MOST_COLUMNS}, but {len(new)} are new."
            )

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows in one write; columns they bring that are new are added to the whole file first.

        Raises:
            LogError: A row does not fit the columns; nothing was written.
            StorageError: The file system refused; the log is as long as before.
        """
        if not self._known.issuperset(set().union(*rows)):
            new = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in self._known]
            self.check(new)
            self._add_columns(new)
        self._write(format_rows(rows, self.columns).encode("utf-8", "backslashreplace"))

    def cut_after(self, step: int) -> None:
        """Drop the rows of later steps, by a rewrite beside and a replace: a resumed run writes them again."""
        if "step" not in self.columns:
            return
        index = self.columns.index("step")
        lines = self._read().split(b"\n")
        kept = [lines[0], *(line for line in lines[1:] if not _is_later(line, index, step))]
        if len(kept) < len(lines):
            files.write_bytes(self.path, b"\n".join(kept))

    def _set_columns(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self._known = frozenset(columns)

    def _add_columns(self, new: Sequence[str]) -> None:
        if not new:
            return
        _, _, body = self._read().partition(b"\n")
        columns = [*self.columns, *new]
        body = body.replace(b"\r\n", b"\n").replace(b"\n", b"," * len(new) + b"\n")
        files.write_bytes(self.path, format_header(columns).encode() + body)
        self._set_columns(columns)

    def _columns_on_disk(self) -> list[str]:
        try:
            columns = _header(self.path)
        except FileNotFoundError:
            return []
        if columns:
            doing = f"continue the log {self.path}"
            with files.storage_errors(doing), os.fdopen(open_for_writing(self.path, os.O_RDWR), "r+b") as file:
                _cut_torn_line(file)
        return columns

    def _read(self) -> bytes:
        with files.storage_errors(f"read the log {self.path}"):
            return _whole_lines(self.path)

    def _write(self, data: bytes) -> None:
        with files.storage_errors(f"write the log {self.path}"):
            descriptor = open_for_writing(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                files.append_block(descriptor, data)
            finally:
                os.close(descriptor)


def read_log(path: Path) -> polars.DataFrame:
    """Read the rows of a log, however it was torn or garbled; warns of lines that are no rows.

    Returns:
        One row per logged step, typed as in `table.read_table`; an empty frame while there is no log.

    Raises:
        StorageError: The file cannot be read.
    """
    import polars

    try:
        header, end, body = _whole_lines(path).partition(b"\n")
    except FileNotFoundError:
        return polars.DataFrame()
    if not end:
        return polars.DataFrame()
    frame, bad = read_table(body, header)
    if bad:
        logger.warning("Left out %d garbled lines of %s.", bad, path)
    return frame


def last_values(path: Path) -> dict[str, str]:
    """Read the last value of each column from the end of a log, without the rest.

    Returns:
        Text by column; a column that was empty for some 2,000 rows is left out.

    Raises:
        StorageError: The file is there and cannot be read.
    """
    try:
        with _reading(path) as file:
            first = file.readline(LONGEST_HEADER)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _RECENT))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return {}
    header = parse_header(first) if first.endswith(b"\n") else []
    found: dict[str, str] = {}
    missing = list(enumerate(header))
    for line in reversed(lines[1:-1]):  # the first is the header or torn by the seek, the last is torn or empty
        fields = parse_row(line, first, len(header))
        if fields is None:
            continue
        present = [(index, name) for index, name in missing if index < len(fields) and fields[index]]
        if present:
            found.update((name, fields[index]) for index, name in present)
            missing = [column for column in missing if column not in present]
        if not missing:
            break
    return {name: found[name] for name in header if name in found}


@contextmanager
def _reading(path: Path) -> Iterator[io.BufferedReader]:
    """Open a log for reading. Raises `FileNotFoundError`, or `StorageError` where it cannot be read."""
    try:
        with open_regular(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
            if os.fstat(descriptor).st_size > LONGEST_LOG:
                raise UnreadableError(path, f"it has more than {LONGEST_LOG} bytes")
            first = file.readline(LONGEST_HEADER)
            if len(first) == LONGEST_HEADER:
                raise UnreadableError(path, f"its first line has more than {LONGEST_HEADER} bytes")
            if first.count(b",") >= MOST_COLUMNS:
                raise UnreadableError(path, f"its first line has more than {MOST_COLUMNS} columns")
            file.seek(0)
            yield file
    except FileNotFoundError:
        raise
    except (UnreadableError, OSError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else error.strerror
        cause = error.__cause__ if isinstance(error, UnreadableError) else error
        raise StorageError(getattr(cause, "errno", None), f"Cannot read the log {path}: {reason}.") from error


def _whole_lines(path: Path) -> bytes:
    with _reading(path) as file:
        data = file.read()
    return data[: data.rfind(b"\n") + 1]


def _cut_torn_line(file: io.BufferedRandom) -> None:
    """Cut off what follows the last line's end; the file has at least one whole line."""
    size = position = file.seek(0, os.SEEK_END)
    while position:
        block = min(position, _TAIL)
        position -= block
        file.seek(position)
        end = file.read(block).rfind(b"\n") + 1
        if end:
            if position + end < size:
                file.truncate(position + end)
            return


def _header(path: Path) -> list[str]:
    with _reading(path) as file:
        first = file.readline(LONGEST_HEADER)
    return parse_header(first) if first.endswith(b"\n") else []


def _is_later(line: bytes, index: int, step: int) -> bool:
    try:
        return float((parse_fields(line) or [])[index]) > step
    except (IndexError, ValueError):
        return False  # no step: the row belongs to none that will be repeated
