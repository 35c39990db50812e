"""Ending at the end of a step, alone and inside `fit`."""

from __future__ import annotations

import os
import signal
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.engine.callbacks.stop import StopOnRequest
from darkit.engine.stop import SIGNALS, SignalGuard, StopRequest
from tests.engine.parts import in_order, made, run_names, train, xy


class Foreign(lightning.LightningModule):
    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.layers = nn.Linear(4, 1)
        self.fail_at = fail_at

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise ZeroDivisionError("theirs")
        return F.mse_loss(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SendSignal(lightning.Callback):
    """Sends this process a signal within a step."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGTERM) -> None:
        self.step, self.number = step, number

    def on_before_optimizer_step(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


def stock(*callbacks: lightning.Callback, steps: int = 8, module: Foreign | None = None) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module or Foreign(), in_order())
    return trainer


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stock_trainer_ends_after_the_current_step(number: signal.Signals) -> None:
    before = handlers()
    stop = StopOnRequest()
    trainer = stock(SendSignal(3, number), stop)
    assert trainer.global_step == 3
    assert (stop.request.signal, stop.request.reason) == (number, f"Stopped by {number.name}.")
    assert handlers() == before


def test_one_that_was_asked_to_stop_can_train_again() -> None:
    stop = StopOnRequest()
    assert stock(SendSignal(3), stop).global_step == 3
    assert stock(stop).global_step == 8
    assert stop.request.reason == ""


def test_a_programmatic_request_stops_it_too() -> None:
    guard = SignalGuard(StopRequest())

    class Ask(lightning.Callback):
        def on_before_optimizer_step(self, trainer: lightning.Trainer, *arguments: Any) -> None:
            if trainer.global_step == 4:
                guard.request.ask("enough")

    assert stock(Ask(), StopOnRequest(guard)).global_step == 5
    assert guard.request.reason == "enough"


def test_the_signals_are_given_back_after_an_error() -> None:
    before = handlers()
    with pytest.raises(ZeroDivisionError, match="theirs"):
        stock(StopOnRequest(), module=Foreign(fail_at=2))
    assert handlers() == before


def test_a_given_guard_stays_installed() -> None:
    before = handlers()
    guard = SignalGuard(StopRequest())
    guard.install()
    stock(StopOnRequest(guard), steps=2)
    assert handlers() != before
    guard.uninstall()
    assert handlers() == before


def test_a_training_without_a_request_runs_to_its_end() -> None:
    assert stock(StopOnRequest()).global_step == 8


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_fit_saves_the_step_and_ends_the_process_as_the_signal_would(number: signal.Signals, code: int) -> None:
    before = handlers()
    with pytest.raises(SystemExit) as ended:
        train(made(), xy(), name="asked", callbacks=[SendSignal(3, number)], max_step=50)
    assert ended.value.code == code
    assert handlers() == before
    assert run_names() == ["asked"]
    from darkit.runs import load

    run = load("asked")
    assert (run.status, run.details.step) == ("stopped", 3)
    assert run.details.reason == f"Stopped by {number.name}."
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [3]


def test_a_signal_within_the_very_last_step_changes_nothing_but_the_exit_code() -> None:
    from darkit.runs import load

    with pytest.raises(SystemExit) as ended:
        train(made(), xy(), name="last", callbacks=[SendSignal(6)], max_step=6)
    assert ended.value.code == 143
    assert (load("last").status, load("last").details.step) == ("finished", 6)
