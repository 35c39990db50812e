"""A request to stop is honoured at the end of the step."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning
import pytest

from darkit.engine.callbacks import StepCheckpoint, StopOnRequest
from darkit.engine.stop import SignalGuard, StopRequest
from darkit.runs.checkpoints import list_checkpoints
from tests.engine.callbacks.stock import Foreign, stock_fit


class SignalAt(lightning.Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number = step, number

    def on_before_backward(self, trainer: lightning.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_alone_a_signal_ends_a_stock_training_after_the_step_and_that_step_is_saved(
    folder: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    stop = StopOnRequest()
    trainer = stock_fit(Foreign(), SignalAt(2, number), stop, StepCheckpoint(folder), max_epochs=5)
    assert trainer.global_step == 3
    assert [checkpoint.step for checkpoint in list_checkpoints(folder)] == [3]
    assert stop.request.signal == number
    assert number.name in stop.request.reason
    assert signal.getsignal(number) == before


def test_a_request_from_elsewhere_is_honoured_after_the_step() -> None:
    request = StopRequest()

    class Asks(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.global_step == 1:
                request.ask("Enough.")
                request.ask("Later ones do not count.")

    trainer = stock_fit(Foreign(), Asks(), StopOnRequest(SignalGuard(request)), max_epochs=5)
    assert trainer.global_step == 2
    assert request.reason == "Enough."
    assert request.signal is None


def test_who_gave_the_guard_keeps_the_signals() -> None:
    guard = SignalGuard(StopRequest())
    before = signal.getsignal(signal.SIGUSR1)
    try:
        guard.install()
        listening = signal.getsignal(signal.SIGUSR1)
        stock_fit(Foreign(), StopOnRequest(guard))
        assert signal.getsignal(signal.SIGUSR1) == listening
    finally:
        guard.uninstall()
    assert signal.getsignal(signal.SIGUSR1) == before
