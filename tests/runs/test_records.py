"""The lines of many rows are those that each value gives by itself."""

from __future__ import annotations

from typing import Any

import numpy
from hypothesis import given
from hypothesis import strategies as st

from darkit.runs.records import format_rows, format_value

VALUES = st.one_of(
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    st.sampled_from(["a,b", 'a "quoted" word', "two\nlines", "\r\n", "nan", "NaN", "inf", ""]),
    st.floats().map(numpy.float64),
    st.floats(width=32).map(numpy.float32),
)
COLUMNS = ["step", "loss", "note", "rare"]


@st.composite
def _rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    kinds = {name: draw(st.sampled_from([VALUES, st.floats(), st.integers(), st.none()])) for name in COLUMNS}
    row = st.fixed_dictionaries({}, optional=kinds)
    return draw(st.lists(row, min_size=1, max_size=6))


@given(_rows())
def test_a_block_of_rows_is_what_its_values_are_one_by_one(rows: list[dict[str, Any]]) -> None:
    one_by_one = "".join(",".join(format_value(row.get(name)) for name in COLUMNS) + "\n" for row in rows)
    assert format_rows(rows, COLUMNS) == one_by_one


def test_a_column_of_floats_spells_what_is_no_number_as_readers_expect() -> None:
    rows = [{"loss": value} for value in (1.0, float("nan"), float("inf"), -0.0, 1e-300, 0.1 + 0.2)]
    expected = "1.0\nNaN\ninf\n-0.0\n1e-300\n0.30000000000000004\n"
    assert format_rows(rows, ["loss"]) == expected
