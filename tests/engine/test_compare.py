"""Whether two trainings are the same, and where they first differ."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkit.engine.checkpoint import write_checkpoint
from darkit.engine.compare import differences, first_difference
from darkit.runs import Run

NAN, INFINITY = float("nan"), float("inf")
STATES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)


@given(STATES)
def test_a_state_does_not_differ_from_itself(state: Any) -> None:
    assert list(differences(state, state)) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), 0.5),
        (torch.tensor([1, 2]), torch.tensor([1, 9]), 7.0),
        (torch.tensor([True]), torch.tensor([False]), 1.0),
        (torch.tensor([0.0]), torch.tensor([-0.0]), 0.0),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, 0.0]), INFINITY),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), INFINITY),
        (torch.zeros(2), torch.zeros(3), INFINITY),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16), 1.0),
        (1.5, 1.0, 0.5),
        (NAN, 1.0, INFINITY),
        (INFINITY, -INFINITY, INFINITY),
        (1, True, INFINITY),
        (1, 2, INFINITY),
        ("a", "b", INFINITY),
        ([1], [1, 2], INFINITY),
        (None, {}, INFINITY),
    ],
)
def test_what_differs_has_a_path_and_a_deviation(one: Any, other: Any, expected: float) -> None:
    ((path, deviation),) = differences({"a": [0, {"b": one}]}, {"a": [0, {"b": other}]})
    assert (path, deviation) == ("a[1].b", expected)


def test_equal_bits_are_no_difference() -> None:
    bits = torch.tensor([NAN, INFINITY, -INFINITY, 0.0, 1e-45])
    assert list(differences({"x": bits}, {"x": bits.clone()})) == []
    assert list(differences(NAN, NAN)) == []


def test_an_entry_that_only_one_has_is_named() -> None:
    assert list(differences({"a": 1, "b": 2}, {"b": 2, "c": 3})) == [("a", INFINITY), ("c", INFINITY)]


class Pair:
    """Two runs with two steps and a record of their batches; the second can be changed."""

    def __init__(self, folder: Path) -> None:
        self.runs = [Run(folder / name) for name in ("one", "other")]
        self.records = [folder / "one.csv", folder / "other.csv"]
        for run, record in zip(self.runs, self.records, strict=True):
            run.path.mkdir()
            (run.path / "status.json").write_text(json.dumps({"state": "finished", "step": 2}))
            (run.path / "train_log.csv").write_text(f"step,time,loss\n1,{id(run)},0.5\n2,{id(run)},nan\n")
            for step in (1, 2):
                self.save(run, step, float(step))
            record.write_text("0,0,aa\n0,1,bb\n")

    def save(self, run: Run, step: int, value: float) -> None:
        content = {"state_dict": {"w": torch.full((2,), value), "v": torch.zeros(1)}, "current_step": step}
        write_checkpoint(run.path, step, content, metrics={}, run_id="")

    def difference(self) -> str:
        return first_difference(*self.runs, *self.records)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_runs_that_differ_only_in_time_are_the_same(pair: Pair) -> None:
    assert pair.difference() == ""
    pair.records[1].write_text("0,0,aa\n0,1,bb\n0,1,bb\n0,2,c")  # done again after a kill, and half a line
    assert pair.difference() == ""


@pytest.mark.parametrize("record", ["0,0,aa\n0,1,xx\n", "0,0,aa\n", "0,0,aa\n0,1,bb\n0,1,xx\n"])
def test_another_batch_is_named_by_its_place(pair: Pair, record: str) -> None:
    pair.records[1].write_text(record)
    assert pair.difference() == "batch 1 of epoch 0 is another one."


def test_another_value_in_the_log_is_named_by_step_and_column(pair: Pair) -> None:
    (pair.runs[1].path / "train_log.csv").write_text("step,time,loss\n1,1,0.5\n2,2,0.25\n")
    assert pair.difference() == "the log at step 2, column loss: nan and 0.25."
    (pair.runs[1].path / "train_log.csv").write_text("step,time,loss\n1,1,0.5\n")
    assert pair.difference().startswith("the logs have 2 and 1 rows of ")


def test_another_weight_is_named_with_step_tensor_and_deviation(pair: Pair) -> None:
    pair.save(pair.runs[1], 2, 2.25)
    assert pair.difference() == (
        "the checkpoint of step 2 in 1 places, first state_dict.w; the largest deviation is 0.25, in state_dict.w."
    )
    pair.save(pair.runs[1], 1, math.pi)
    assert pair.difference().startswith("the checkpoint of step 1 ")


def test_a_missing_last_checkpoint_is_told_and_an_earlier_one_may_be_missing(pair: Pair) -> None:
    (pair.runs[1].path / "iter-1-ckpt.pth").unlink()
    assert pair.difference() == ""
    (pair.runs[1].path / "iter-2-ckpt.pth").unlink()
    assert pair.difference() == "the second run has no checkpoint of the last step, 2."
