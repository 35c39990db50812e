"""Comparison of two states or runs, bit for bit, with the first difference."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import darkit
from darkit.engine.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from darkit.engine.checkpoints.difference import differences, first_difference
from darkit.runs.checkpoints import find_checkpoint
from tests.engine.parts import made, train, xy

NAN = float("nan")
EQUAL: list[Any] = [
    {"a": [1, (2.5, "x")], "b": {"c": None}},
    torch.tensor([1.0, NAN, math.inf, -0.0]),
    torch.tensor(3),
    torch.tensor([True]),
    torch.ones(2, dtype=torch.bfloat16),
    torch.ones(1, dtype=torch.complex64),
    torch.empty(0),
    NAN,
]


@pytest.mark.parametrize("value", EQUAL, ids=str)
def test_equal_is_equal(value: Any) -> None:
    other = value.clone() if isinstance(value, torch.Tensor) else value
    assert list(differences({"x": value}, {"x": other})) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.5, 4.0])}, [("a", 2.0)]),
        ({"a": torch.tensor(0.0)}, {"a": torch.tensor(-0.0)}, [("a", 0.0)]),
        ({"a": torch.tensor([math.inf])}, {"a": torch.tensor([torch.finfo().max])}, [("a", math.inf)]),
        ({"a": torch.tensor([NAN])}, {"a": torch.tensor([0.0])}, [("a", math.inf)]),
        ({"a": torch.ones(2)}, {"a": torch.ones(1, 2)}, [("a", math.inf)]),
        ({"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.float64)}, [("a", math.inf)]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [("a[1].b", math.inf)]),
        ({"a": 1.0}, {"a": 1.25}, [("a", 0.25)]),
        ({"a": NAN}, {"a": 1.25}, [("a", math.inf)]),
        ({"a": 1}, {"a": 1.0}, [("a", math.inf)]),
        ({"a": 1}, {"a": True}, [("a", math.inf)]),
        ({"a": 1}, {}, [("a", math.inf)]),
        ({}, {"a": None}, [("a", math.inf)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", math.inf)]),
        ({1: {"x": 1}, 2: 0}, {1: {"x": 2}, 2: 1}, [("1.x", math.inf), ("2", math.inf)]),
    ],
    ids=str,
)
def test_every_difference_is_named_with_its_size(one: Any, other: Any, expected: list[tuple[str, float]]) -> None:
    assert list(differences(one, other)) == expected


@pytest.fixture
def pair(tmp_path: Path) -> tuple[darkit.Run, darkit.Run, Path, Path]:
    """A run of four steps, its copy, and their batches."""
    run = train(made(), xy(), name="one", max_step=4, save_step_interval=2)
    shutil.copytree(run.path, run.path.parent / "two")
    records = tmp_path / "one.csv", tmp_path / "two.csv"
    for record in records:
        record.write_text("0,0,aa\n0,1,bb\n0,2,cc\n")
    return run, darkit.load("two"), *records


def test_equal_runs_have_no_difference(pair: Any) -> None:
    assert first_difference(*pair) == ""


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("0,0,aa\n0,1,XX\n0,2,cc\n", "batch 1 of epoch 0 differs."),
        ("0,0,aa\n0,1,bb\n", "batch 2 of epoch 0 differs."),
        ("0,0,aa\n0,1,bb\n0,1,XX\n0,2,cc\n", "batch 1 of epoch 0 differs."),
        ("0,0,aa\n0,1,bb\n0,1,bb\n0,2,cc\n0,2,c", ""),
    ],
    ids=["another", "missing", "repeated as another", "repeated and torn"],
)
def test_a_batch_that_differs_is_named_and_one_that_was_done_again_is_not(pair: Any, second: str, said: str) -> None:
    pair[3].write_text(second)
    assert first_difference(*pair) == said


def test_a_row_of_the_log_that_differs_is_named_but_for_its_time(pair: Any) -> None:
    log = pair[1].path / "train_log.csv"
    rows = [line.split(",") for line in log.read_text().splitlines()]
    rows[2][rows[0].index("time")] = "1.5"
    log.write_text("\n".join(",".join(row) for row in rows) + "\n")
    assert first_difference(*pair) == ""
    rows[2][rows[0].index("train_loss")] = "7.5"
    log.write_text("\n".join(",".join(row) for row in rows) + "\n")
    assert first_difference(*pair).startswith("the log at step 2, column train_loss: ")
    log.write_text("\n".join(",".join(row) for row in rows[:-1]) + "\n")
    assert first_difference(*pair).startswith("the logs have 4 and 3 rows of ")


def test_a_checkpoint_that_differs_is_named_by_step_place_and_deviation(pair: Any) -> None:
    content = read_checkpoint(find_checkpoint(pair[1].path, 2))
    content["state_dict"]["layers.0.bias"][1] += 4
    content["current_step"] = 3
    write_checkpoint(pair[1].path, 2, content, metrics={}, run_id="")
    said = first_difference(*pair)
    assert said.startswith("the checkpoint of step 2 in 2 places, first state_dict.layers.0.bias; the largest ")
    assert said.endswith("deviation is inf, in current_step.")


def test_a_second_run_without_the_last_checkpoint_is_not_equal(pair: Any) -> None:
    find_checkpoint(pair[1].path, 4).path.unlink()
    assert first_difference(*pair) == "the second run has no checkpoint of the last step, 4."
