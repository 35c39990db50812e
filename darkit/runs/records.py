"""One line of a log: how the fields of a record become text and text becomes fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from darkit.errors import LogError

_MARK = b"\xef\xbb\xbf"  # some editors mark UTF-8 so
_VALUE = re.compile(rb'|".*|true|false|[ +-]*(?:[\d.].*|nan *|inf *|infinity *)', re.IGNORECASE)
_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|\Z)')


def check_column(name: object) -> None:
    """Raise `LogError` when this cannot be a column's name."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise LogError(f"The name of a log column must be printable text on one line, not {name!r}.")


def format_header(columns: Sequence[str]) -> str:
    """Return the first line of a log."""
    return ",".join(_quote(name) if '"' in name or "," in name else name for name in columns) + "\n"


def parse_header(line: bytes) -> list[str]:
    """Return the columns; a line that cannot be a record is the name of one."""
    text = line.removeprefix(_MARK)
    return parse_fields(text) or [text.decode("utf-8", "replace").strip("\r\n")]


def parse_row(line: bytes, header: bytes, width: int) -> list[str] | None:
    """Split a line below a header of so many columns; None if it is no row. The last fields may be missing."""
    start = repeated_start(header)
    if start and line.startswith(start):
        names, said = (text.removeprefix(_MARK).rstrip(b"\r\n,") + b"," for text in (header, line))
        if names.startswith(said):
            return None
    fields = parse_fields(line)
    return fields if fields is not None and len(fields) <= width else None


def repeated_start(header: bytes) -> bytes:
    """Return how a line begins that repeats the header, as two files put together have it.

    Empty where a row may begin so too: text is quoted in rows, numbers and booleans are not.
    """
    first = header.removeprefix(_MARK).rstrip(b"\r\n").partition(b",")[0]
    return b"" if _VALUE.fullmatch(first) else first


def format_value(value: Any) -> str:
    """Return one field: a number so that it reads back equal, text in quotes on one line, nothing for None."""
    if value is None:
        return ""
    if not isinstance(value, (float, int, str)) and hasattr(value, "item"):  # a scalar of numpy or torch
        value = value.item()
    if isinstance(value, float):
        return float.__repr__(value) if value == value else "NaN"  # the one spelling that polars takes for a number
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    return _quote(str(value).replace("\r\n", " ").replace("\n", " ").replace("\r", " "))


def format_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a line for each row, with the fields that `format_value` returns.

    They are made column by column: most columns hold values of one type, whose fields are made without a call of a
    function of Python's for each, which would keep the training thread waiting for the interpreter.
    """
    fields = [_format_column([row.get(column) for row in rows]) for column in columns]
    return "".join([f"{line}\n" for line in map(",".join, zip(*fields, strict=True))])


def _format_column(values: Sequence[Any]) -> list[str]:
    kinds = set(map(type, values))
    if kinds == {float}:
        texts = list(map(float.__repr__, values))
        return [format_value(value) for value in values] if "nan" in texts else texts
    if kinds == {int}:
        return list(map(int.__repr__, values))
    if kinds == {NoneType}:
        return [""] * len(values)
    return [format_value(value) for value in values]


def parse_fields(line: bytes) -> list[str] | None:
    """Split one record; None if it cannot be one."""
    text = line.decode("utf-8", "replace").rstrip("\r\n").replace("\r", " ")
    if '"' not in text:
        return text.split(",")
    fields, position = [], 0
    while match := _FIELD.match(text, position):
        quoted, bare, comma = match.groups()
        fields.append(bare if quoted is None else quoted.replace('""', '"'))
        if not comma:
            return fields
        position = match.end()
    return None


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
