"""State that cannot be saved is found before there is work to lose; NumPy values are converted and restored."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

import darkit
from darkit.core import Trainer
from darkit.engine.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.engine.checkpoints.savable import check_savable
from darkit.engine.checkpoints.snapshot import Snapshot
from darkit.errors import CheckpointCorruptError, CheckpointUnreadableError
from darkit.runs.checkpoints import describe_checkpoint, find_checkpoint
from tests.core.parts import LoopConfig
from tests.engine.parts import run_names, train

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


class Stateful(nn.Module):
    """Keeps something beside its weights."""

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.kept = {"kept": kept}
        self.config = {}
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.layer(x)

    def get_extra_state(self) -> Any:
        return self.kept

    def set_extra_state(self, state: Any) -> None:
        self.kept = state


def milestones(optimizer: Any) -> MultiStepLR:
    return MultiStepLR(optimizer, milestones=numpy.array([2, 4]), gamma=numpy.float64(0.5))  # type: ignore[arg-type]


def test_numpy_milestones_are_saved_and_resumed() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(4, 1)

    settings: Any = {"loss": F.mse_loss, "scheduler": milestones, "optimizer": torch.optim.SGD, "save_step_interval": 3}
    straight = train(make(), (X, Y), name="straight", max_step=6, **settings)
    train(make(), (X, Y), name="broken", max_step=3, **settings)
    broken = train(make(), (X, Y), name="broken", max_step=6, resume=True, **settings)
    one, other = (read_checkpoint(find_checkpoint(run.path, 6)) for run in (straight, broken))
    assert list(differences(one, other)) == []
    assert one["scheduler_state_dict"]["milestones"] == Counter({2: 1, 4: 1})
    assert straight.log()["lr"].to_list() == broken.log()["lr"].to_list()


@pytest.mark.parametrize(
    "kept",
    [
        {"count": numpy.int64(3), "mean": numpy.float32(0.5), "flag": numpy.bool_(True)},
        {"array": numpy.arange(4.0), "nested": [(numpy.zeros((2, 0), dtype=numpy.int16), "x")]},
        {numpy.int64(1): {numpy.str_("key"): numpy.eye(2, dtype=bool)}},
        {"counts": Counter({numpy.int64(2): 1})},
    ],
    ids=["numbers", "arrays", "keys", "counter"],
)
def test_what_numpy_has_is_converted_and_comes_back(kept: Any) -> None:
    model = Stateful(kept)
    run = train(model, (X, Y), loss=F.mse_loss, max_step=1)
    torch.load(run.path / "iter-1-ckpt.pth", weights_only=True)
    again = Stateful()
    darkit.core.Predicter.from_pretrained(run.name, "cpu", model=again)
    found = again.kept["kept"]
    assert repr(plain(found)) == repr(plain(kept))
    if "array" in kept:
        assert type(found["array"]) is numpy.ndarray
        assert found["nested"][0][0].dtype == numpy.int16


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.item() if isinstance(value, numpy.generic) else value


class Callable:
    """Is saved with its attributes, among them whatever it was given."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def __call__(self, step: int) -> float:
        return 1.0


UNSAVABLE = {
    "an object": object(),
    "a range": range(3),
    "words": numpy.array(["a", "b"]),
    "a defaultdict": defaultdict(list),
    "a key": {(1, frozenset()): 2},
}


@pytest.mark.parametrize("kind", UNSAVABLE)
def test_state_of_a_model_that_cannot_be_saved_is_found_before_the_first_step(kind: str) -> None:
    model = Stateful(UNSAVABLE[kind])
    with pytest.raises(CheckpointUnreadableError, match=r"state_dict\._extra_state\.kept.* needs "):
        train(model, (X, Y), loss=F.mse_loss, max_step=100)
    assert model.calls == 0
    assert run_names() == []


def test_state_of_a_schedule_that_cannot_be_saved_is_found_before_the_first_step() -> None:
    model = Stateful({})
    with pytest.raises(CheckpointUnreadableError, match=r"scheduler_state_dict\.lr_lambdas.*kept needs "):
        train(
            model,
            (X, Y),
            loss=F.mse_loss,
            scheduler=lambda optimizer: LambdaLR(optimizer, Callable(object())),
            max_step=100,
        )
    assert model.calls == 0


class Odd(torch.optim.SGD):
    """Has state of a strange kind once it has made a step."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["seen"] = object()
        return super().step(closure)


def test_state_that_an_optimizer_has_from_its_first_step_on_is_found_after_that() -> None:
    model = Stateful({})
    with pytest.raises(CheckpointUnreadableError, match=r"optimizer_state_dict.*seen needs"):
        train(model, (X, Y), loss=F.mse_loss, optimizer=Odd, max_step=100)
    assert model.calls == 1


def test_a_hand_written_loop_gets_the_error_at_its_first_step() -> None:
    class Loop(Trainer):
        def train(self) -> None:
            for step in range(self.max_step):
                self.current_step = step
                self._auto_save_pretrained()

    loop = Loop(Stateful(object()), LoopConfig(name="loop", max_step=50))
    with pytest.raises(CheckpointUnreadableError, match="_extra_state"):
        loop.train()
    assert loop.current_step == 0


def test_invalid_ranks_are_refused(tmp_path: Any) -> None:
    for number, place in enumerate(([["state_dict", "x"]], [["step"]], [[]], [3], [["list", 7]])):
        content = {"state_dict": {}, "step": 1, "list": [torch.ones(1)], "numpy_arrays": place}
        path = write_checkpoint(tmp_path, number, content, metrics={}, run_id="")
        found = describe_checkpoint(path)
        assert found is not None
        with pytest.raises(CheckpointCorruptError, match="misplaces a NumPy array"):
            read_checkpoint(found)


def test_what_is_checked_is_what_is_written() -> None:
    content = {"a": numpy.ones(2), "b": (numpy.float64(1), {"c": [numpy.arange(2)]})}
    check_savable(content)
    copied = Snapshot().copy(content)
    assert copied["numpy_arrays"] == [["a"], ["b", 1, "c", 0]]
    assert type(copied["b"][0]) is float
