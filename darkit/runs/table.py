"""A log's lines as a table: quickly where all is well, line by line where the file is garbled."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from darkit.runs.records import parse_fields, parse_header

if TYPE_CHECKING:
    import polars

logger = logging.getLogger(__name__)

_ROWS_TO_INFER = 1000  # looking through all rows first takes polars eight times as long as reading them


def make_table(whole: bytes, path: Path) -> polars.DataFrame:
    """Makes a table of a log's whole lines, whatever stands in them.

    Args:
        whole: The lines, header first.
        path: Where they come from, for the warning about lines that cannot be records.

    Returns:
        One row per record. A column holds integers, floats or booleans when every one of its values is such, and text
        otherwise; one without any value counts as floats.
    """
    import polars

    names = _unique(parse_header(whole[: whole.index(b"\n")]))
    frame = _parse(whole, names)
    if frame is None:
        frame = _salvage(whole, names, path)
    return polars.DataFrame([_with_type(column) for column in frame.iter_columns()])


def _unique(names: Iterable[str]) -> list[str]:
    unique: dict[str, None] = {}
    used: dict[str, int] = {}
    for name in names:
        candidate = name
        while candidate in unique:
            count = used.get(name, 0)
            candidate, used[name] = f"{name}_duplicated_{count}", count + 1
        unique[candidate] = None
    return list(unique)


def _parse(whole: bytes, names: list[str]) -> polars.DataFrame | None:
    """Reads what is a table, one record a line; None if it is not one."""
    import polars

    if not whole.strip(b"\r\n") or whole.startswith((b"\n", b"\r")):
        return None
    for rows_to_infer in (_ROWS_TO_INFER, 0):  # without inference every column is text and fits whatever comes late
        try:
            frame = polars.read_csv(whole, infer_schema=rows_to_infer > 0, infer_schema_length=rows_to_infer or None)
        except polars.exceptions.PolarsError:
            continue
        if frame.shape == (whole.count(b"\n") - 1, len(names)):
            return frame.rename(dict(zip(frame.columns, names, strict=True)))
    return None


def _salvage(whole: bytes, names: list[str], path: Path) -> polars.DataFrame:
    """Reads each line for itself and leaves out those that cannot be records."""
    import polars

    columns: dict[str, list[str | None]] = {name: [] for name in names}
    left_out = 0
    for line in whole.split(b"\n")[1:-1]:
        values = parse_fields(line)
        if values is None or len(values) > len(columns):
            left_out += 1
            continue
        values += [""] * (len(columns) - len(values))
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value or None)
    if left_out:
        logger.warning("Left out %d garbled lines of %s.", left_out, path)
    return polars.DataFrame(columns, schema=dict.fromkeys(columns, polars.String))


def _with_type(column: polars.Series) -> polars.Series:
    """Makes numbers or booleans of a column of text that holds nothing else."""
    import polars

    if column.dtype in (polars.Int64, polars.Float64, polars.Boolean):
        return column
    if column.dtype != polars.String or column.null_count() == len(column):
        return column.cast(polars.Float64)
    if column.drop_nulls().is_in(["true", "false"]).all():
        return column == "true"
    for dtype in (polars.Int64, polars.Float64):
        try:
            return column.cast(dtype)
        except polars.exceptions.InvalidOperationError:
            continue
    return column
