"""Going on from any step is bit for bit what would have followed without the break."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import darkit
from darkit.engine.callbacks.record import RecordBatches
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.difference import differences, first_difference
from darkit.runs import Run
from darkit.runs.requests import request_stop
from tests.children import Zygote
from tests.faults.parts import finished, training, wait_until

STEPS = 24
SAMPLES = 22  # with batches of 2 and windows of 3, epochs and steps end in different places


class Augmented(Dataset[Any]):
    """Samples with noise from all three generators, as an augmentation has it."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        import numpy

        noise = torch.rand(()) + random.random() + float(numpy.random.rand())
        return torch.full((6,), float(index)) / SAMPLES + 0.1 * noise, torch.tensor([float(index % 3)])


class StopAfter(lightning.Callback):
    """Asks for the end after a step, as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            trainer.should_stop = True


class Net(nn.Sequential):
    """A model with dropout and running statistics."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 12), nn.Dropout(0.2), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 1))


def train(name: str, folder: Path, workers: int, *callbacks: lightning.Callback, **settings: Any) -> Run:
    torch.manual_seed(3)
    return darkit.fit(
        Net(),
        Augmented(),
        Augmented(),
        loss=nn.functional.mse_loss,
        name=name,
        callbacks=[RecordBatches(folder / f"{name}.csv"), *callbacks],
        device="cpu",
        batch_size=2,
        num_workers=workers,
        optimizer="adamw",
        weight_decay=0.1,
        scheduler="cosine",
        warmup_step=4,
        gradient_accumulation_steps=3,
        gradient_clip=1.0,
        max_step=STEPS,
        eval_step_interval=5,
        eval_iters=2,
        tensorboard=False,
        **settings,
    )


@pytest.mark.few(1)
@pytest.mark.parametrize(("workers", "cases"), [(0, 14), (2, 6)])
def test_resumed_at_random_steps_everything_is_as_in_the_straight_run(tmp_path: Path, workers: int, cases: int) -> None:
    straight = train("straight", tmp_path, workers)
    chosen = random.Random(workers)
    for step in chosen.sample(range(1, STEPS), cases):
        name = f"broken-{step}"
        broken = train(name, tmp_path, workers, StopAfter(step))
        assert broken.latest_checkpoint().step == step  # type: ignore[union-attr]
        resumed = train(name, tmp_path, workers, resume=True)
        assert resumed.details.step == STEPS
        difference = first_difference(straight, resumed, tmp_path / "straight.csv", tmp_path / f"{name}.csv")
        assert difference == "", (step, difference)
        last = [read_run_checkpoint(run.path)[1] for run in (straight, resumed)]
        assert list(differences(*last)) == [], step


# Nothing happens after this step until somebody asks for the end, or kills.
HOLD = """
import os, time, lightning
class Hold(lightning.Callback):
    def on_train_batch_end(self, trainer, *rest):
        request = next(one.request for one in trainer.callbacks if hasattr(one, "request"))
        if trainer.global_step == int(os.environ.get("HOLD", 0)):
            print("held", flush=True)
            while not request.reason:
                time.sleep(0.01)
"""


def held(**settings: Any) -> str:
    return HOLD + training(**settings).replace('device="cpu"', 'device="cpu", callbacks=[Hold()]')


def assert_same(one: Run, other: Run) -> None:
    contents = [read_run_checkpoint(found.path)[1] for found in (one, other)]
    assert list(differences(*contents)) == []
    assert one.log().drop("time").equals(other.log().drop("time"))


def test_killed_thrice_a_run_ends_as_the_straight_one(zygote: Zygote, tmp_path: Path) -> None:
    code = held(max_step=300, save_step_interval=20, eval_step_interval=0)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert zygote.run(code, straight).wait() == 0
    run = broken / "base" / "run"
    for step in (50, 110, 230):
        child = zygote.run(code, broken, HOLD=str(step))
        wait_until(lambda: max(finished(run), default=0) >= step // 20 * 20, child.output)  # noqa: B023 - called here
        child.kill_group()
        assert Run(run).status == "crashed"
    last = zygote.run(code, broken)
    assert last.wait() == 0, last.output
    assert_same(*(Run(home / "base" / "run") for home in (straight, broken)))


def test_a_request_to_stop_in_mid_epoch_is_no_break_in_the_data(zygote: Zygote, tmp_path: Path) -> None:
    code = held(max_step=100, save_step_interval=0)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert zygote.run(code, straight).wait() == 0
    run = broken / "base" / "run"
    child = zygote.run(code, broken, HOLD="43")  # an epoch has 16 batches
    wait_until(lambda: "held\n" in child.output, child.output)
    request_stop(run, "the tests")
    assert child.wait() == 0, child.output
    assert Run(run).status == "stopped"
    assert Run(run).details.step in (43, 44)
    assert zygote.run(code, broken).wait() == 0
    assert_same(*(Run(home / "base" / "run") for home in (straight, broken)))
