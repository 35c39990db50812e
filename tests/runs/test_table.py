"""The rows of a log as columns: numbers and tables by the same rules, whatever the lines are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.runs.records import parse_header
from darkit.runs.table import read_numbers, read_table
from tests.runs.lines import expected, headers, logs, number, typed


def same(found: object, wanted: object) -> bool:
    if isinstance(wanted, float):
        return isinstance(found, float) and (found == wanted or (math.isnan(found) and math.isnan(wanted)))
    return type(found) is type(wanted) and found == wanted


def assert_as_expected(data: bytes, header: bytes) -> None:
    rows, bad = expected(data, header)
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in parse_header(header)]
    numbers, bad_numbers = read_numbers(data, header)
    table, bad_rows = read_table(data, header)
    assert bad_numbers == bad_rows == bad
    assert numbers.width == table.width == len(columns)
    for column, floats, values in zip(columns, numbers.iter_columns(), table.iter_columns(), strict=True):
        assert all(map(same, floats.to_list(), map(number, column)))
        kind, wanted = typed(column)
        assert str(values.dtype) == kind
        assert len(values) == len(wanted)
        assert all(map(same, values.to_list(), wanted)), (values.to_list(), wanted)


@settings(max_examples=1000)
@given(logs, headers)
def test_numbers_and_tables_have_the_same_rows_whatever_the_lines_are(data: bytes, header: bytes) -> None:
    assert_as_expected(data, header)


@settings(max_examples=500)
@given(st.binary(max_size=200), headers)
def test_any_bytes_are_read_without_an_exception(data: bytes, header: bytes) -> None:
    assert_as_expected(data[: data.rfind(b"\n") + 1], header)


@pytest.mark.soak
@settings(max_examples=10_000)
@given(st.one_of(logs, st.binary(max_size=400)), headers)
def test_ten_thousand_cases_of_bytes_are_read_exactly_and_without_an_exception(data: bytes, header: bytes) -> None:
    assert_as_expected(data[: data.rfind(b"\n") + 1], header)


@pytest.mark.parametrize(
    ("data", "wanted", "bad"),
    [
        (b"1,0.5,\n2,0.25,\n", [(1, 0.5, None), (2, 0.25, None)], 0),
        (b"1,0.5\n2\n\n", [(1, 0.5, None), (2, None, None), (None, None, None)], 0),
        (b"1,0.5,,\n2,0.25,\n", [(2, 0.25, None)], 1),
        (b"1,0.5,\nstep,loss,note\n2,0.25,\n", [(1, 0.5, None), (2, 0.25, None)], 1),
        (b"step,loss,note,,\nstep,\n2,0.25,\n", [(2, 0.25, None)], 2),
        (b'1,0.5,"step"\n2,0.25,"7"\n', [(1, 0.5, "step"), (2, 0.25, "7")], 0),
        (b'1,0.5,""\n2,0.25,\n', [(1, 0.5, ""), (2, 0.25, None)], 0),
        (b"1,0.5,\r\n2,0.25,\r\n", [(1, 0.5, None), (2, 0.25, None)], 0),
        (b'1,"0.5\n2,0.25,\n', [(2, 0.25, None)], 1),
        (b"1, 0.5 ,\n", [(1, 0.5, None)], 0),
    ],
)
def test_rows_of_a_log(data: bytes, wanted: list[tuple[object, ...]], bad: int) -> None:
    table, left_out = read_table(data, b"step,loss,note\n")
    assert table.rows() == wanted
    assert left_out == bad


def test_a_name_that_comes_again_gets_a_number() -> None:
    table, _ = read_table(b"1,2,3\n", b"a,a,b\n")
    assert table.columns == ["a", "a_duplicated_0", "b"]
