"""Tables to predict for, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from darkit.errors import ConfigError, DataError
from darkit.prediction.rows import Rows, read_rows, write_rows

OBJECTS = [{"width": 1, "kind": "猫"}, {"width": 2.5, "kind": "a\u2028b"}]


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl"])
def test_what_is_written_is_read_again(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{ending}"
    write_rows(path, Rows("here", ["width", "kind"], [list(item.values()) for item in OBJECTS]))
    rows = read_rows(path)
    assert rows.names == ["width", "kind"]
    assert rows.column("kind") == ["猫", "a\u2028b"]
    assert rows.numbers(["width"], None) == [[1.0], [2.5]]
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_a_jsonl_has_a_row_on_every_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + "\r\n\n".join(json.dumps(item) for item in OBJECTS) + "\n")
    assert read_rows(path).column("width") == [1, 2.5]
    path.write_text("[1, 2]\n[3, 4]")
    assert read_rows(path).numbers([], 2) == [[1.0, 2.0], [3.0, 4.0]]


def test_arrays_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    write_rows(path, Rows("here", values=[[1.5], [2.5]]))
    assert numpy.load(path).tolist() == [1.5, 2.5]
    numpy.save(path, numpy.ones((2, 3), dtype=numpy.int16))
    assert read_rows(path).numbers([], 3) == [[1.0] * 3] * 2
    numpy.save(path, numpy.ones((2, 1, 3)))
    assert read_rows(path).array.shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.csv", None, "The file .*gone.csv does not exist"),
        ("a.csv", b"", "a.csv has no rows"),
        ("a.csv", b"x,y\n", "a.csv has no rows"),
        ("a.csv", b"x,y\n1\n", "a.csv, row 1 has 1 column, but the first line names 2"),
        ("a.csv", b"x\n\xff\n", "a.csv is not text in UTF-8 at byte 2"),
        ("a.json", b"[1,", "a.json is not JSON: "),
        ("a.json", b"[]", "a.json must hold a list of rows"),
        ("a.json", b"[[1, 2], [3]]", "a.json, row 2 has 1 column, but the first has 2"),
        ("a.json", b'[{"x": 1}, {"y": 1}]', "a.json, row 2 has no 'x', which the first row has"),
        ("a.jsonl", b'{"x": 1}\n{"x": ', "a.jsonl, line 2, is not JSON: "),
        ("a.jsonl", b"\n", "a.jsonl must hold a row on every line"),
        ("a.npy", b"no", "a.npy is not a NumPy array file"),
        ("a.npy", numpy.ones(3), r"a.npy must hold numbers \(rows, columns\), not float64\[3\]"),
    ],
)
def test_a_file_that_is_wrong_is_one_sentence(name: str, content: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        numpy.save(path, content)
    with pytest.raises(DataError, match=said):
        read_rows(path)


@pytest.mark.parametrize("value", ["x", "", "nan", None, True, [1]])
def test_what_is_no_number_is_named_with_its_row_and_column(value: Any) -> None:
    with pytest.raises(DataError, match=r"here, row 2: the column 'width' must be a number, not "):
        Rows("here", ["width"], [[1], [value]]).numbers(["width"], None)


def test_columns_that_the_run_needs_must_be_there() -> None:
    with pytest.raises(DataError, match=r"here has no column 'height', which the run needs. Available: width"):
        Rows("here", ["width"], [[1]]).numbers(["height"], None)
    with pytest.raises(DataError, match="here has 1 column, but the run's model takes 2"):
        Rows("here", [], [[1]]).numbers([], 2)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    rows = Rows("here", ["x"], [[1]])
    with pytest.raises(ConfigError, match=r"must end with .*, but is 'a\.xlsx'"):
        write_rows(tmp_path / "a.xlsx", rows)
    with pytest.raises(ConfigError, match=r"Cannot write a\.csv: the folder .*gone does not exist"):
        write_rows(tmp_path / "gone" / "a.csv", rows)
    assert list(tmp_path.iterdir()) == []
