"""Whole runs on data, models and settings of every kind resume bit for bit, from the second epoch too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.engine.parts import MLP, xy
from tests.engine.resuming import (
    Augmented,
    Buffered,
    Counting,
    OwnNoise,
    assert_same,
    break_off,
    hugging,
    run_one,
    shuffling,
    weighted,
)


def with_validation(val: Callable[[], Any], train: Callable[[], Any] = xy) -> Callable[[], Any]:
    return lambda: {"train": train(), "val": val()}


EVALUATED = {"eval_step_interval": 2, "eval_iters": 2}
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "weighted batch sampler, accumulated over the end of an epoch": (weighted, {"gradient_accumulation_steps": 3}),
    "weighted with persistent workers": (lambda: weighted(num_workers=2, persistent_workers=True), {}),
    "own sampler with persistent workers": (
        lambda: DataLoader(Augmented(), 6, sampler=Counting(), num_workers=1, persistent_workers=True),
        {"precision": "bf16-mixed"},
    ),
    "Hugging Face with a buffer": (lambda: hugging(7), {}),
    "stream with a buffer": (Buffered, {"gradient_accumulation_steps": 2}),
    "own generators": (OwnNoise, {}),
    "metrics": (
        with_validation(xy, Augmented),
        {"model": MLP, "metrics": lambda: {"error": torchmetrics.MeanAbsoluteError()}, **EVALUATED},
    ),
    "sampler of the validation": (
        with_validation(lambda: shuffling(generator=torch.Generator().manual_seed(2))),
        EVALUATED,
    ),
    "persistent workers of the validation": (
        with_validation(lambda: shuffling(num_workers=1, persistent_workers=True)),
        EVALUATED,
    ),
    "kept loader for the validation": (
        with_validation(lambda: DataLoader(Augmented(), 6, sampler=Counting())),
        EVALUATED,
    ),
}


@pytest.mark.few(5)
@pytest.mark.parametrize("case", CASES)
def test_a_run_resumes_bit_for_bit(case: str) -> None:
    data, options = CASES[case]
    straight = run_one(data, "straight", **options)
    for step in (2, 5):  # in the first epoch, and in or after the second
        name = break_off(straight, step)
        assert_same(straight, run_one(data, name, resume=True, save_step_interval=0, **options))


class Compiled(nn.Module):
    """Small enough for a compiler to be quick."""

    def __init__(self, backend: Any = "inductor") -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
        self.backend = backend

    def compile(self, **options: Any) -> None:
        super().compile(backend=self.backend, **options)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return F.mse_loss(self(x), y)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_a_compiled_model_has_a_graph_for_each_shape_whatever_came_before() -> None:
    shapes: list[list[Any]] = []

    def look(graph: Any, inputs: list[Any]) -> Any:
        shapes.append([len(part) for part in inputs if isinstance(part, Tensor) and part.shape[1:] == (4,)])
        return graph.forward

    def data() -> Any:
        return xy(14)  # batches of 4, 4, 4 and 2

    options: dict[str, Any] = {"compile": True, "max_step": 7}
    straight = run_one(data, "straight", model=lambda: Compiled(look), **options)
    assert sorted(size for found in shapes for size in found if size in (2, 4)) == [2, 4]
    torch._dynamo.reset()
    again = run_one(data, break_off(straight, 3), model=lambda: Compiled(look), resume=True, **options)
    assert_same(straight, again, 7)


@pytest.mark.soak
def test_a_model_compiled_to_kernels_resumes_bit_for_bit() -> None:
    options: dict[str, Any] = {"model": Compiled, "compile": True, "max_step": 7}
    straight = run_one(lambda: xy(14), "straight", **options)
    name = break_off(straight, 3)  # so that the smaller batch is the first that the resumed run sees
    assert_same(straight, run_one(lambda: xy(14), name, resume=True, save_step_interval=0, **options), 7)
