"""Worker processes end with their training, and with the process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data._utils import signal_handling

import darkit
from darkit.engine.data import workers
from tests.engine.parts import Numbers, made, train, xy


class Broken(Numbers):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 13:
            raise ValueError("a file that cannot be read")
        return super().__getitem__(index)


def own_workers(before: set[Any]) -> set[Any]:
    return set(multiprocessing.active_children()) - before


@pytest.mark.parametrize("purpose", ["training", "validation"])
def test_no_worker_is_left_while_the_error_is_referenced(purpose: str) -> None:
    before = set(multiprocessing.active_children())
    broken = DataLoader(Broken(), batch_size=4, num_workers=1)
    data = (broken, None) if purpose == "training" else (Numbers(), broken)
    with pytest.raises(ValueError, match="a file that cannot be read") as held:
        train(made(), *data, max_step=8, eval_step_interval=1)
    assert held.value.__traceback__ is not None
    assert not own_workers(before)


def test_workers_that_are_kept_for_the_next_epoch_end_with_the_process() -> None:
    before = set(multiprocessing.active_children())
    loader = DataLoader(TensorDataset(*xy(8)), batch_size=4, num_workers=1, persistent_workers=True)
    workers.shield_workers(loader)
    batches = workers.begin(loader)
    assert len(next(batches)) == 2
    workers.end(batches)
    assert own_workers(before)
    workers._end_all()  # as `atexit` calls it; Python would wait for them without end
    assert not own_workers(before)


class Kills(torch.optim.SGD):
    """Kills a data worker in the middle of its third step."""

    calls = 0
    others: ClassVar[set[Any]] = set()  # children of earlier tests

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        if self.calls == 3:
            (worker,) = own_workers(self.others)
            os.kill(worker.pid or 0, signal.SIGKILL)
            os.waitid(os.P_PID, worker.pid or 0, os.WEXITED | os.WNOWAIT)
        return super().step(closure)


def test_a_worker_that_dies_in_an_optimizer_step_is_reported_after_it_and_the_step_is_saved() -> None:
    loader = DataLoader(TensorDataset(*xy()), batch_size=4, num_workers=1)
    Kills.others = set(multiprocessing.active_children())
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        train(made(), loader, max_step=8, name="run", optimizer=lambda parameters: Kills(parameters, lr=0.1))
    run = darkit.load("run")
    assert run.status == "crashed"
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [3]


def test_a_workers_death_is_told_once_while_its_error_ends_the_training() -> None:
    told: list[int] = []
    handler = workers.Once(lambda number, frame: told.append(number))
    for first, count in ((RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 0), (KeyError(), 1)):
        told.clear()
        try:
            raise first
        except (RuntimeError, KeyError):
            handler(signal.SIGCHLD, None)
        assert len(told) == count
    handler(signal.SIGCHLD, None)
    assert len(told) == 2


def test_the_handler_that_torch_installs_for_workers_is_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)  # torch installs it once, another test undid it
    loader = DataLoader(TensorDataset(torch.zeros(4, 1)), num_workers=1)
    workers.shield_workers(loader)
    batches = workers.begin(loader)
    try:
        assert isinstance(signal.getsignal(signal.SIGCHLD), workers.Once)
    finally:
        workers.end(batches)
