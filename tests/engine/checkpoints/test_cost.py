"""What a save costs the training thread, counted rather than timed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import darkit
from darkit.engine.callbacks import StepCheckpoint
from darkit.engine.checkpoints import checkpoint, writer
from tests.engine.parts import made, train, xy

_LARGE = 1000  # elements


class Passes(TorchDispatchMode):
    """Count the elements that operations read or write, by operation, on the thread that enters it."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), settings: Mapping[str, Any] | None = None
    ) -> Any:
        result = operation(*arguments, **settings or {})
        if not operation.is_view and operation.overloadpacket._qualified_op_name != "aten::detach":
            large = [
                one
                for one in tree_leaves(arguments)
                if isinstance(one, Tensor) and one.is_floating_point() and one.numel() >= _LARGE
            ]
            self.elements[operation.overloadpacket.__name__] += max((one.numel() for one in large), default=0)
        return result


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """The operations of every save on the training thread."""
    found: list[Counter[str]] = []
    save = StepCheckpoint.save

    def counted(*arguments: Any, **settings: Any) -> None:
        with Passes() as seen:
            save(*arguments, **settings)
        found.append(+seen.elements)

    monkeypatch.setattr(StepCheckpoint, "save", counted)
    return found


class Wide(nn.Module):
    """Weights of which each has enough elements to count."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x.square().mean()


def test_a_save_reads_the_state_once_on_the_training_thread(passes: list[Counter[str]]) -> None:
    data = torch.randn(16, 64)
    darkit.fit(Wide(), data, device="cpu", optimizer="adam", max_step=4, save_step_interval=2, batch_size=4)
    weights = 3 * 64 * 64
    assert [dict(one) for one in passes] == [{"copy_": 3 * weights}] * 2, "weights and both averages, and no check"


def test_weights_are_checked_by_the_thread_that_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    aminmax = torch.aminmax

    def noted(*arguments: Any, **settings: Any) -> Any:
        names.append(threading.current_thread().name)
        return aminmax(*arguments, **settings)

    monkeypatch.setattr(torch, "aminmax", noted)
    train(made(), xy(), max_step=4, save_step_interval=2)
    assert names
    assert {name.partition("_")[0] for name in names} == {"darkit-checkpoint"}


def test_a_new_checkpoint_takes_four_synchronisations(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    fsync, write = os.fsync, checkpoint.write_checkpoint
    counted: list[int] = []

    def synchronise(descriptor: int) -> None:
        nonlocal count
        count += threading.current_thread().name.startswith("darkit-checkpoint")
        fsync(descriptor)

    def save(*arguments: Any, **settings: Any) -> Any:
        before = count
        path = write(*arguments, **settings)
        counted.append(count - before)
        return path

    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(writer, "write_checkpoint", save)
    train(made(), xy(), max_step=4, save_step_interval=2)
    assert counted == [4, 4], "the file, its manifest, and the folder after each"
