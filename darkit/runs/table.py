"""The rows of a log as columns: the rules by which `Run.log()` and the dashboard read the same lines.

- A line ends with a line feed and carriage returns before it; one within a line counts as a space. Quotes enclose a
  field, never several lines.
- A line with fewer fields than the header lacks the last values. A blank line is a row without values.
- No row, counted and left out: a line with more fields than the header, with quotes that do not enclose a whole field,
  or that repeats the header.
- An unquoted field may be a number (spaces around it are ignored), ``true`` or ``false``. A quoted one is text.

Polars splits the lines wherever all of them are sound; otherwise `records.parse_row` picks the sound ones first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from darkit.runs.records import parse_header, parse_row, repeated_start

if TYPE_CHECKING:
    import polars

_QUOTED = re.compile(rb'(?<![^,\n])"(?:[^"\n]|"")*"(?=[,\n])')
_CRLF = re.compile(rb"\r+\n")
_TEXT = b"x"  # stands for a quoted field where only numbers are wanted
_ODD = (b" ", b"\t")  # polars takes some of them for a part of a number


def read_numbers(data: bytes, header: bytes) -> tuple[polars.DataFrame, int]:
    """Read rows as numbers.

    Args:
        data: Whole lines without the header.
        header: The first line of the log.

    Returns:
        One column of floats for each of the header's, named by its index, null where there is no number; and how many
        lines are no rows.
    """
    import polars

    def read(_: bytes, unquoted: bytes, width: int) -> polars.DataFrame:
        if not any(odd in unquoted for odd in _ODD):
            return _split(unquoted, width, polars.Float64())
        stripped = polars.all().str.strip_chars(" ")
        return _split(unquoted, width, polars.String()).select(stripped.cast(polars.Float64, strict=False))

    return _read_rows(data, header, read)


def read_table(data: bytes, header: bytes) -> tuple[polars.DataFrame, int]:
    """Read rows, given as for `read_numbers`, as what they say.

    Returns:
        One column for each of the header's, and how many lines are no rows. A column holds integers, floats or booleans
        when every one of its values is such, and text otherwise; one without any value counts as floats.
    """
    import polars

    def read(rows: bytes, unquoted: bytes, width: int) -> polars.DataFrame:
        frame = _split(unquoted, width, polars.String())
        columns = [_with_type(column, spaces=b" " in unquoted) for column in frame.iter_columns()]
        if unquoted is not rows and any(column.dtype == polars.String for column in columns):
            texts = _split(rows, width, polars.String()).iter_columns()
            columns = [
                text if column.dtype == polars.String else column for column, text in zip(columns, texts, strict=True)
            ]
        return polars.DataFrame(columns)

    frame, bad = _read_rows(data, header, read)
    return frame.rename(dict(zip(frame.columns, column_names(header), strict=True))), bad


def column_names(header: bytes) -> list[str]:
    """Return a different name for each column of a log; a name that comes again gets a number."""
    unique: dict[str, None] = {}
    used: dict[str, int] = {}
    for name in parse_header(header):
        candidate = name
        while candidate in unique:
            count = used.get(name, 0)
            candidate, used[name] = f"{name}_duplicated_{count}", count + 1
        unique[candidate] = None
    return list(unique)


def _read_rows(
    data: bytes, header: bytes, read: Callable[[bytes, bytes, int], polars.DataFrame]
) -> tuple[polars.DataFrame, int]:
    """Call a function with the rows, the rows with `_TEXT` for each quoted field, and their width."""
    import polars

    width = len(parse_header(header))
    if b"\r" in data:
        data = _CRLF.sub(b"\n", data).replace(b"\r", b" ")
    unquoted = _without_text(data)
    start = repeated_start(header)
    if b'"' not in unquoted and not (start and (data.startswith(start) or b"\n" + start in data)):
        try:
            return read(data, unquoted, width), 0
        except polars.exceptions.PolarsError:  # a line has too many fields, or is not UTF-8
            pass
    lines = data.split(b"\n")[:-1]
    kept = [line.decode("utf-8", "replace") for line in lines if parse_row(line, header, width) is not None]
    data = "".join(f"{row}\n" for row in kept).encode()
    return read(data, _without_text(data), width), len(lines) - len(kept)


def _without_text(data: bytes) -> bytes:
    return _QUOTED.sub(_TEXT, data) if b'"' in data else data


def _split(rows: bytes, width: int, dtype: polars.DataType) -> polars.DataFrame:
    """Split lines that are rows. Raises `PolarsError` where one has too many fields."""
    import polars

    names = [str(index) for index in range(width)]
    return polars.read_csv(
        ",".join(names).encode() + b"\n" + rows,  # polars takes the number of fields from the first line
        quote_char='"' if b'"' in rows else None,
        schema=dict.fromkeys(names, dtype),
        ignore_errors=dtype.is_float(),
        truncate_ragged_lines=False,
    )


def _with_type(column: polars.Series, *, spaces: bool) -> polars.Series:
    """Return numbers or booleans where all values are such, and the text otherwise."""
    import polars

    present = column.drop_nulls()
    if not len(present):
        return column.cast(polars.Float64)
    if present[0] in ("true", "false") and present.is_in(["true", "false"]).all():
        return column == "true"
    stripped = column.str.strip_chars(" ") if spaces else column
    for dtype in (polars.Int64, polars.Float64):
        try:
            return stripped.cast(dtype)
        except polars.exceptions.InvalidOperationError:
            continue
    return column
