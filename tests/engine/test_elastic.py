"""The same samples in every step on any number of processes, in one training and over several resumes."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

import darkit
from darkit.engine.callbacks.base import StepCallback
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.runs import Run
from tests.children import Zygote
from tests.engine.ranks import Noting, Numbered, on_ranks, weights_of

SETTINGS: dict[str, Any] = {
    "resume": "auto",
    "device": "cpu",
    "optimizer": "sgd",
    "lr": 0.1,
    "tensorboard": False,
    "log_step_interval": 1,
}


class Steps(StepCallback):
    """Notes the samples of each step in this process."""

    def __init__(self) -> None:
        self.ids: dict[int, list[int]] = {}

    def on_step(self, trainer: lightning.Trainer, pl_module: Any, outputs: dict[str, Any], step: int) -> None:
        batches = pl_module.module.ids
        self.ids[step] = [index for batch in batches for index in batch]
        batches.clear()


def case(name: str = "run", samples: int = 43, ranks: int = 1, **settings: Any) -> dict[str, Any]:
    """Train, or resume, and return the samples of each step and the weights."""
    model, steps = Noting(), Steps()
    with contextlib.redirect_stderr(io.StringIO()) as said:
        darkit.fit(model, Numbered(samples), name=name, device_num=ranks, callbacks=[steps], **SETTINGS | settings)
    return {"ids": steps.ids, "weights": weights_of(model), "said": said.getvalue()}


def joined(found: list[dict[str, Any]]) -> dict[int, list[int]]:
    """Return the samples of each step of all processes, sorted."""
    return {step: sorted(index for one in found for index in one["ids"][step]) for step in found[0]["ids"]}


def test_resumes_on_1_2_4_and_1_processes_see_the_samples_and_end_with_the_weights_of_one(
    zygote: Zygote, tmp_path: Path
) -> None:
    """43 samples are five steps of 8 and one of 3; each resume is within an epoch."""
    straight = case(batch_size=8, max_step=16)
    expected = joined([straight])
    assert [len(expected[step]) for step in range(1, 14)] == [8, 8, 8, 8, 8, 3, 8, 8, 8, 8, 8, 3, 8]
    assert sorted(index for step in range(1, 7) for index in expected[step]) == list(range(43))
    assert expected[1] != expected[7]
    seen: dict[int, list[int]] = {}
    run = Run(tmp_path / "base" / "run")
    said = ""
    for ranks, last in ((1, 3), (2, 7), (4, 13), (1, 16)):
        # the batch size is the most that a process computes at once, so one process makes four batches of a step
        found = on_ranks(zygote, tmp_path, case, ranks=ranks, batch_size=2, global_batch_size=8, max_step=last)
        seen |= joined(found)
        said += found[0]["said"]
    assert set(seen) == set(expected)
    filled = seen.pop(12)  # 3 samples for four processes: one of them computes a sample that does not count
    assert (len(filled), set(filled)) == (4, set(expected.pop(12)))
    assert seen == expected
    place = read_run_checkpoint(run.path)[1]["position"]
    assert (place["epoch"], place["samples"], place["per_step"]) == (2, 32, 8)
    torch.testing.assert_close(found[0]["weights"], straight["weights"], rtol=1e-4, atol=1e-6)
    rows, oracle = run.log(), darkit.load("run").log()
    assert rows["train_loss"].to_list() == pytest.approx(oracle["train_loss"].to_list(), rel=1e-4)
    assert rows["epoch"].to_list() == oracle["epoch"].to_list()
    for was, now in (("one process", 2), ("2 processes", 4), ("4 processes", 1)):
        assert f"trained by {was} and continues on {now} with the same 8 samples in every step: sums are added" in said
    assert said.count("Further processes seed their generators with (seed, step, rank).") == 2


class Dropping(Noting):
    """Draws random numbers, of which those of each process are noted."""

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        self.ids.append(torch.randint(2**31, (1,)).tolist())
        return nn.functional.mse_loss(self.layers(batch["x"]), batch["y"])
