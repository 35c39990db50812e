"""Readers of text, JSON Lines, CSV and Parquet files, record by record."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darkit.errors import DataError, nearest

TEXT_FIELD = "text"
DOCUMENTS = ("file", "paragraph", "line")
_ROWS = 4096  # rows of a Parquet file in memory at once

Values = Mapping[str, Any]
Reader = Callable[[Path, Sequence[str], str], Iterator[tuple[str, Values]]]


def read_file(path: Path, fields: Sequence[str], documents: str) -> Iterator[tuple[str, Values]]:
    """Read a file record by record.

    Args:
        path: A file with one of the `ENDINGS`.
        fields: The fields to read of each record.
        documents: Unit of a text file: ``file``, ``paragraph`` (separated by empty lines) or ``line``.

    Yields:
        A readable position of each record, and its fields.

    Raises:
        DataError: The file is empty, does not match its suffix, or lacks a field.
    """
    try:
        if not path.stat().st_size:
            raise DataError(f"The file {path} is empty.")
        yield from _READERS[path.suffix.lower()](path, fields, documents)
    except OSError as error:
        raise _unreadable(path, error) from error


def digest_file(path: Path) -> bytes:
    """Return the sha256 of a file. Raises `DataError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"The file {path} cannot be read: {error.strerror or error}.")


def _read_text(path: Path, fields: Sequence[str], documents: str) -> Iterator[tuple[str, Values]]:
    check_fields(path, fields, [TEXT_FIELD])
    found = False
    for number, text in _texts(path, documents):
        found = True
        yield (f"{path}, line {number}" if number else str(path)), {TEXT_FIELD: text}
    if not found:
        raise DataError(f"The file {path} has nothing but white space.")


def _texts(path: Path, documents: str) -> Iterator[tuple[int, str]]:
    """Iterate over the documents of a text file with their first lines, without those of white space."""
    if documents == "file":
        text = "".join(line for _, line in _lines(path))
        if text.strip():
            yield 0, text
    elif documents == "line":
        for number, line in _lines(path):
            if line.strip():
                yield number, line.rstrip("\r\n")
    else:
        paragraph: list[str] = []
        first = 0
        for number, line in _lines(path):
            if line.strip():
                first = first if paragraph else number
                paragraph.append(line)
            elif paragraph:
                yield first, "".join(paragraph).rstrip("\r\n")
                paragraph = []
        if paragraph:
            yield first, "".join(paragraph).rstrip("\r\n")


def _read_json_lines(path: Path, fields: Sequence[str], documents: str) -> Iterator[tuple[str, Values]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: invalid JSON ({error}). A .jsonl file has an object on every line.") from error
        if not isinstance(values, dict):
            raise DataError(
                f"{where}: not an object but a {type(values).__name__}. A .jsonl file has an object on every line."
            )
        check_fields(where, fields, values)
        yield where, {field: values[field] for field in fields}


def _read_csv(path: Path, fields: Sequence[str], documents: str) -> Iterator[tuple[str, Values]]:
    csv.field_size_limit(sys.maxsize)  # the default limit is too low for texts
    rows = csv.reader((line for _, line in _lines(path)), strict=True)
    try:
        header = next(rows, [])
        check_fields(path, fields, header)
        places = [header.index(field) for field in fields]
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if len(row) != len(header):
                if not row:
                    continue
                raise DataError(f"{where}: the row has {len(row)} fields, but the header has {len(header)}.")
            yield where, {field: row[place] for field, place in zip(fields, places, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: invalid CSV ({error}).") from error


def _read_parquet(path: Path, fields: Sequence[str], documents: str) -> Iterator[tuple[str, Values]]:
    import polars

    try:
        table = polars.scan_parquet(path, glob=False)
        check_fields(path, fields, table.collect_schema().names())
        number = 0
        for part in table.select(fields).collect_batches(chunk_size=_ROWS, maintain_order=True):
            for row in part.iter_rows(named=True):
                yield f"{path}, row {number}", row
                number += 1
    except polars.exceptions.PolarsError as error:
        raise DataError(f"The file {path} is not a valid Parquet file: {str(error).splitlines()[0]}.") from error


_READERS: dict[str, Reader] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_json_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
ENDINGS = tuple(_READERS)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Iterate over the lines of a UTF-8 file, numbered from 1, with their ends. Raises `DataError` for other bytes."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            offset += len(line) - len(data)
            try:
                text, wrong = data.decode(), data.find(b"\0")
            except UnicodeDecodeError as error:
                wrong = error.start
            if wrong >= 0:
                place = f"byte {data[wrong]:#04x} at offset {offset + wrong}"
                raise DataError(f"The file {path} is not UTF-8 text: {place}.")
            offset += len(data)
            yield number, text


def check_fields(where: object, fields: Iterable[str], known: Collection[Any]) -> None:
    """Raise `DataError` if one of the fields is not there; ``where`` says in what."""
    for field in fields:
        if field not in known:
            raise DataError(f"{where}: no field {field!r}. {nearest(field, map(str, known))}.")
