"""Data that ends finishes a run; an error in the data is reported as one of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

import darkit
from darkit.errors import DataError
from tests.engine.parts import made, run_names, train, xy
from tests.engine.resuming import (
    Augmented,
)


class Once(IterableDataset[Any]):
    """Samples that can be read once."""

    def __init__(self, batches: int, first: int = 0) -> None:
        x, y = xy(64)
        self.samples = iter([(x[index % 64], y[index % 64]) for index in range(first, first + 4 * batches)])

    def __iter__(self) -> Iterator[Any]:
        return self.samples


@pytest.mark.few(1)
@pytest.mark.parametrize("leaving", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_data_worker_that_leaves_is_told_as_a_worker_that_died(leaving: BaseException) -> None:
    class Leaves(Augmented):
        def __getitem__(self, index: int) -> Any:
            self.read = getattr(self, "read", 0) + (torch.utils.data.get_worker_info() is not None)
            if self.read == 24:
                raise leaving
            return super().__getitem__(index)

    with pytest.raises((RuntimeError, OSError, EOFError)):  # whichever torch meets first
        train(made(), Leaves(), name="left", num_workers=1, max_step=20)
    details = darkit.load("left").details
    assert details.state == "crashed"
    assert details.reason.startswith("A data worker died: ")
    assert details.step == darkit.load("left").checkpoints()[-1].step > 0


def test_data_that_ends_is_an_end_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    model = made()
    run = train(model, Once(10), xy(), name="ended", max_step=100, eval_step_interval=5)
    assert (run.status, run.details.step) == ("finished", 10)
    assert run.details.reason == "The training data ended at step 10 of 100."
    assert run.details.reason in capsys.readouterr().err
    assert [saved.step for saved in run.checkpoints()] == [10]
    assert run.log()["step"].to_list() == list(range(1, 11))
    straight = made()
    again = train(straight, Once(17), name="straight", max_step=17)
    run = train(made(seed=7), Once(7, first=40), name="ended", resume=True, max_step=17)
    assert (run.status, run.details.step, run.details.reason) == ("finished", 17, "")
    assert run.log()["train_loss"].to_list() == again.log()["train_loss"].to_list()
    assert all(torch.equal(one, two) for one, two in zip(straight.parameters(), _weights(run), strict=True))


def _weights(run: darkit.Run) -> list[torch.Tensor]:
    content = torch.load(run.checkpoints()[-1].path, weights_only=True)
    return list(content["state_dict"].values())


def test_a_run_that_is_resumed_with_no_more_data_ends_as_it_ended_before() -> None:
    for _ in range(2):
        run = train(made(), Once(3), name="ended", resume="auto", max_step=100)
        assert run.status == "finished"
    assert (run.details.step, run.details.reason) == (6, "The training data ended at step 6 of 100.")
    run = train(made(), Once(0), name="ended", resume="auto", max_step=100)
    assert (run.status, run.details.step) == ("finished", 6)
    assert [saved.step for saved in run.checkpoints()] == [3, 6]


def test_data_that_ends_within_a_window_of_accumulation_ends_after_the_last_whole_step() -> None:
    run = train(made(), Once(10), name="window", max_step=100, gradient_accumulation_steps=4)
    assert (run.status, run.details.step, run.details.reason) == (
        "finished",
        2,
        "The training data ended at step 2 of 100.",
    )
    assert [saved.step for saved in run.checkpoints()] == [2]


def test_no_data_at_all_is_an_error_that_leaves_nothing() -> None:
    with pytest.raises(DataError, match="training data is empty"):
        train(made(), Once(0), name="nothing")
    assert run_names() == []
