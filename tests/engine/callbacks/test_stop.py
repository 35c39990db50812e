"""A request to stop, honoured at the end of a step; alone in a stock trainer it listens itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from darkit.engine.callbacks import StepCheckpoint, StopOnRequest
from darkit.engine.stop import SIGNALS, SignalGuard, StopRequest
from darkit.runs.checkpoints import list_checkpoints
from tests.engine.parts import LossMLP, in_order, made, train, xy

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")


class Foreign(lightning.LightningModule):
    """Somebody's, which is interrupted in the middle of a step."""

    def __init__(self, at: int = -1, number: int = signal.SIGTERM) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = LossMLP()
        self.at, self.number = at, number

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == self.at:
            os.kill(os.getpid(), self.number)
        return self.model(*batch)["loss"]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def stock(module: Foreign, *callbacks: lightning.Callback) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=8,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, in_order())
    return trainer


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_stock_training_with_its_step_complete_and_saved(
    number: signal.Signals, tmp_path: Path
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    stop = StopOnRequest()
    trainer = stock(Foreign(at=2, number=number), stop, StepCheckpoint(tmp_path))
    assert trainer.global_step == 3
    assert stop.request.reason == f"It was asked to stop by {number.name}."
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [3]
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_without_a_request_nothing_happens() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    assert stock(Foreign(), StopOnRequest()).global_step == 8
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_the_signals_are_given_back_after_an_error_too() -> None:
    class Failing(lightning.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            raise ZeroDivisionError

    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(ZeroDivisionError):
        stock(Foreign(), StopOnRequest(), Failing())
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_request_from_elsewhere_stops_and_whoever_listens_keeps_the_signals() -> None:
    guard = SignalGuard(StopRequest())
    guard.install()
    guard.request.ask("enough")
    try:
        assert stock(Foreign(), StopOnRequest(guard)).global_step == 1
        assert signal.getsignal(signal.SIGTERM) == guard._note
    finally:
        guard.uninstall()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_ends_as_stopped_at_a_step_and_with_the_code_of_the_signal(
    number: signal.Signals, accumulate: int
) -> None:
    class Killing(lightning.Callback):
        def on_before_optimizer_step(self, trainer: lightning.Trainer, *arguments: Any) -> None:
            if trainer.global_step == 2:
                os.kill(os.getpid(), number)

    options: dict[str, Any] = {"name": "run", "max_step": 5, "gradient_accumulation_steps": accumulate}
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(SystemExit) as caught:
        train(made(), xy(), callbacks=[Killing()], **options)
    assert caught.value.code == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before
    run = train(made(), xy(), resume=True, **options)
    assert run.info["continued"][0]["after_step"] == 3
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [3, 5]
    assert run.status == "finished"
