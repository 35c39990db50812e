"""An input that fits a run, from what the run recorded of its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkit.runs.example import example_input, target


@pytest.mark.parametrize(
    ("sample", "example"),
    [
        ("(float32[3], float32[1])", '"[[0.5, 0.5, 0.5]]"'),
        ("float64[2, 2]", '"[[[0.5, 0.5], [0.5, 0.5]]]"'),
        ("(bfloat16[1], int64[])", '"[[0.5]]"'),
        ("(int64[2], int64[2])", '"[[1, 1]]"'),
        ("(bool[1],)", '"[[true]]"'),
        ("(float32[], float32[])", '"[0.5]"'),
        ("(float32[65], float32[])", "INPUT"),
        ("(float32[3, 224, 224], int64[])", "INPUT"),
        ("{input_ids: int64[8], labels: int64[8]}", "INPUT"),
        ("(ndarray, int)", "INPUT"),
        ("(str, float32[3])", "INPUT"),
        ("((float32[1], float32[2]), float32[3])", '"[[0.5]]"'),
        ("", "INPUT"),
    ],
)
def test_an_example_has_the_shape_of_a_batch_of_one(sample: str, example: str, tmp_path: Path) -> None:
    assert example_input(tmp_path, {"data": {"kind": "TensorDataset", "sample": sample}}) == example


@pytest.mark.parametrize(
    ("parts", "example"),
    [
        ([{"dtype": "float32", "shape": [3]}, {"dtype": "int64", "shape": []}], '"[[0.5, 0.5, 0.5]]"'),
        ([[{"dtype": "bool", "shape": [1]}], {"dtype": "int64", "shape": []}], '"[[true]]"'),
        ({"dtype": "int64", "shape": [2]}, '"[[1, 1]]"'),
        ({"fields": {"x": {"dtype": "int64", "shape": [2]}}}, "INPUT"),
        ([{"type": "str"}, {"dtype": "int64", "shape": []}], "INPUT"),
        *(({"dtype": "int64", "shape": shape}, "INPUT") for shape in ([-1], ["2"], "2", None, [65])),
        ({"dtype": 3, "shape": []}, "INPUT"),
        ([], "INPUT"),
    ],
)
def test_the_parts_of_a_sample_come_before_its_text(parts: object, example: str, tmp_path: Path) -> None:
    data = {"sample": "(float32[1], float32[1])", "sample_parts": parts}
    assert example_input(tmp_path, {"data": data}) == example


def test_the_target_is_the_last_part_of_several() -> None:
    part = {"dtype": "int64", "shape": []}
    assert target({"data": {"sample_parts": [{"type": "str"}, part]}}) == ("int", ())
    assert target({"data": {"sample_parts": [part]}}) is None
    assert target({"data": {"sample_parts": part}}) is None
    assert target({"data": {"sample": "(float32[2], uint8[1, 2])"}}) == ("uint", (1, 2))
    assert target({}) is None


def test_a_run_with_a_tokenizer_takes_a_prompt(tmp_path: Path) -> None:
    assert example_input(tmp_path, {}) == "INPUT"
    (tmp_path / "tokenizer").mkdir()
    assert example_input(tmp_path, {}) == '"The import statement"'
    (tmp_path / "tokenizer").rmdir()
    (tmp_path / "tokenizer.json").touch()
    assert example_input(tmp_path, {}) == '"The import statement"'


def test_a_masked_model_takes_a_text_in_which_something_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").touch()
    for kind in ("MaskedTokens", "SentencePairs"):
        assert example_input(tmp_path, {"data": {"kind": kind}}) == '"The [MASK] statement"'
    assert example_input(tmp_path, {"data": {"kind": "Mine", "task": "masked"}}) == '"The [MASK] statement"'


def test_data_that_is_not_described_as_it_should_be_gives_no_example(tmp_path: Path) -> None:
    for data in (None, "float32[1]", [1], {"sample": None}, {"sample": f"float32[{'9' * 5000}]"}):
        assert example_input(tmp_path, {"data": data}) == "INPUT"
