"""Going on is exact, from any step and whatever the data is; other settings are told or refused."""

from __future__ import annotations

import functools
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader

import darkit
from darkit.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    ConfigError,
    RunNotFoundError,
)
from darkit.runs import Run, base
from tests.engine.parts import MLP, Numbers, equal_weights, made, run_names, train, weights_at, xy
from tests.engine.resuming import (
    STEPS,
    Augmented,
    Continuing,
    Dropping,
    Epochs,
    OwnSampler,
    Shuffled,
    assert_same,
    break_off,
    run_one,
    shuffling,
)


def adamw(**options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return functools.partial(torch.optim.AdamW, lr=0.01, **options)


def warm(optimizer: torch.optim.Optimizer) -> SequentialLR:
    parts = [LinearLR(optimizer, total_iters=3), CosineAnnealingLR(optimizer, 8)]
    return SequentialLR(optimizer, parts, milestones=[3])


ANY = (4, 5, 6)  # of 4 or of 3 batches an epoch: its end, and within
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "tensors": (xy, {}),
    "last batch not full": (lambda: xy(14), {}),
    "list": (lambda: list(zip(*xy(), strict=True)), {}),
    "augmented": (Augmented, {}),
    "workers": (Augmented, {"num_workers": 2}),
    "shuffling loader": (shuffling, {}),
    "sequential loader": (lambda: DataLoader(Augmented(), batch_size=6), {}),
    "dropping loader": (lambda: shuffling(drop_last=True), {}),
    "shuffling loader with workers": (lambda: shuffling(num_workers=2), {}),
    "loader with a generator": (lambda: shuffling(generator=torch.Generator().manual_seed(8)), {}),
    "sampler": (lambda: DataLoader(Augmented(), batch_size=6, sampler=OwnSampler()), {}),
    "sampler with workers": (lambda: DataLoader(Augmented(), batch_size=6, sampler=OwnSampler(), num_workers=2), {}),
    "stream": (Shuffled, {}),
    "stream with workers": (Shuffled, {"num_workers": 2}),
    "stream with a state": (Continuing, {}),
    "sized stream with a state": (lambda: Continuing(sized=True), {}),
    "loader of a stream with a state": (lambda: DataLoader(Continuing(), batch_size=6), {}),
    "accumulation": (Augmented, {"gradient_accumulation_steps": 3}),
    "accumulation of a stream": (Shuffled, {"gradient_accumulation_steps": 3}),
    "clipping": (xy, {"gradient_clip": 0.1}),
    "mixed precision": (xy, {"precision": "bf16-mixed"}),
    "evaluation": (lambda: {"train": Augmented(), "val": xy()}, {"eval_step_interval": 2}),
    "warm-up and cosine": (xy, {"scheduler": "cosine", "warmup_step": 3}),
    "linear": (xy, {"scheduler": "linear", "optimizer": "sgd"}),
    "optimizer of one's own": (xy, {"optimizer": adamw(amsgrad=True)}),
    "callbacks": (Augmented, {"callbacks": lambda: [Epochs()]}),
    "callbacks of a stream": (Shuffled, {"callbacks": lambda: [Epochs()]}),
}
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda optimizer: StepLR(optimizer, 2, 0.5),
    "MultiStepLR": lambda optimizer: MultiStepLR(optimizer, [2, 2, 7], 0.5),
    "ExponentialLR": lambda optimizer: ExponentialLR(optimizer, 0.9),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=20),
    "CyclicLR": lambda optimizer: CyclicLR(optimizer, 0.001, 0.1, step_size_up=2, cycle_momentum=False),
    "WarmRestarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, 3),
    "SequentialLR": warm,
}


@pytest.mark.parametrize("case", CASES)
def test_going_on_from_any_step_is_bit_for_bit_as_without_a_break(case: str) -> None:
    data, options = CASES[case]
    straight = run_one(data, "straight", **options)
    assert straight.details.step == STEPS
    for step in ANY:
        name = break_off(straight, step)
        assert_same(straight, run_one(data, name, resume=True, save_step_interval=0, **options))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_goes_on_where_it_was(schedule: str) -> None:
    options = {"scheduler": SCHEDULES[schedule], "optimizer": adamw()}
    straight = run_one(xy, "straight", **options)
    for step in (1, 2, 5):
        name = break_off(straight, step)
        assert_same(straight, run_one(xy, name, resume=True, save_step_interval=0, **options))


def test_a_run_that_is_broken_off_after_every_step_ends_like_one_that_was_not() -> None:
    straight = run_one(Augmented, "straight", scheduler="cosine")
    name = break_off(straight, 1)
    for step in range(2, STEPS + 1):
        broken = run_one(
            Augmented, name, resume=True, scheduler="cosine", callbacks=lambda step=step: [StopAtBatch(step)]
        )
        assert broken.details.step == step
    assert_same(straight, broken)


def test_an_epoch_that_was_begun_is_not_begun_again_and_each_is_ended_once() -> None:
    straight = run_one(xy, "straight", callbacks=lambda: [Epochs()])
    for step in ANY:
        heard = Epochs()
        run_one(xy, break_off(straight, step), resume=True, save_step_interval=0, callbacks=lambda heard=heard: [heard])
        assert heard.heard == ["start 0", "end 0", "start 1", "end 1", "start 2", "end 2"]


class StopAt(lightning.Callback):
    """What people write to end a training early."""

    def __init__(self, step: int) -> None:
        self.step = step

    def look(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if trainer.global_step >= self.step:
            trainer.should_stop = True


class StopAtBatch(StopAt):
    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.look(trainer)


class StopAtEpoch(StopAt):
    def on_train_epoch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.look(trainer)


class EarlyStopping(StopAtEpoch, lightning.pytorch.callbacks.EarlyStopping):
    """Lightning calls those that monitor something after the module."""

    def __init__(self, step: int) -> None:
        lightning.pytorch.callbacks.EarlyStopping.__init__(self, "train_loss", strict=False)
        self.step = step

    def state_dict(self) -> dict[str, Any]:
        return {}

    def on_train_start(self, *arguments: Any) -> None:
        """Nothing to look up."""


@pytest.mark.parametrize(
    ("stop", "data", "accumulate"),
    [
        (StopAtBatch, xy, 1),
        (StopAtBatch, xy, 3),
        (StopAtBatch, Shuffled, 1),
        (StopAtEpoch, xy, 1),
        (StopAtEpoch, xy, 2),
        (StopAtEpoch, Shuffled, 1),
        (EarlyStopping, xy, 1),
        (EarlyStopping, Shuffled, 1),
    ],
)
def test_a_training_that_a_callback_ended_early_goes_on_exactly(
    stop: type[StopAt], data: Callable[[], Any], accumulate: int
) -> None:
    options = {"gradient_accumulation_steps": accumulate, "save_step_interval": 0}
    straight = run_one(data, "straight", **options)
    for step in (2, 4) if stop is StopAtBatch else (2,):
        ended = run_one(data, f"ended-{step}", callbacks=lambda step=step: [stop(step)], **options)
        assert ended.status == "finished"
        assert step <= ended.details.step < STEPS
        assert ended.latest_checkpoint().step == ended.details.step
        assert_same(straight, run_one(data, ended.name, resume=True, **options))
