"""Ctrl-C in a notebook, and a raised KeyboardInterrupt: `stopped`, and the last completed step saved."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import lightning
import pytest
import torch

import darkit
from darkit.engine.stop import is_interactive
from tests.engine.parts import Numbers, equal_weights, made, run_names, train, weights_at, xy


def assert_stopped_after(name: str, step: int) -> darkit.Run:
    run = darkit.load(name)
    assert (run.status, run.details.step, run.details.traceback) == ("stopped", step, "")
    assert run.log()["step"].to_list() == list(range(1, step + 1))
    assert run.checkpoints()[-1].step == step
    assert run.checkpoints()[-1].metrics["train_loss"] == run.log()["train_loss"][-1]
    return run


def test_in_a_notebook_fit_returns_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kill(lightning.Callback):
        def on_before_backward(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)  # as IPython's shell does
    assert is_interactive()
    model = made()
    run = train(model, xy(), name="notebook", max_step=100_000, callbacks=[Kill()])
    assert run == assert_stopped_after("notebook", 4)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in weights_at(run, 4).items())
    assert train(made(), xy(), max_step=2).status == "finished"


@pytest.mark.parametrize("place", ["data", "model", "callback"])
def test_a_raised_keyboard_interrupt_passes_through_and_the_last_completed_step_is_saved(
    place: str,
) -> None:
    class Interrupting(Numbers):
        def __getitem__(self, index: int) -> Any:
            if place == "data" and len(self.asked) == 16 + 18:  # in the fifth batch, after the fingerprint's pass
                raise KeyboardInterrupt
            return super().__getitem__(index)

    calls = []

    def loss(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if place == "model" and len(calls) == 5:
            raise KeyboardInterrupt
        return torch.nn.functional.mse_loss(outputs, target)

    class Interrupts(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if place == "callback" and trainer.global_step == 5:
                raise KeyboardInterrupt

    model, straight = made(), made()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(model, Interrupting(), name="raised", loss=loss, callbacks=[Interrupts()], max_step=9)
    run = darkit.load("raised")
    assert run.status == "stopped"
    assert signal.getsignal(signal.SIGINT) == handler
    step = 5 if place == "callback" else 4
    assert run.latest_checkpoint().step == step  # type: ignore[union-attr]
    train(straight, Numbers(), max_step=step)
    straight_weights = straight.state_dict()
    assert all(torch.equal(value, straight_weights[key]) for key, value in weights_at(run, step).items())
    assert not equal_weights(made(), straight)


def test_a_stopped_run_goes_on_to_the_weights_of_the_straight_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kill(lightning.Callback):
        def on_before_backward(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    train(made(), xy(), name="stopped", max_step=9, callbacks=[Kill()])
    ours, straight = made(seed=5), made()
    run = train(ours, xy(), name="stopped", resume=True, max_step=9)
    train(straight, xy(), max_step=9)
    assert run.log()["step"].to_list() == list(range(1, 10))
    assert run.status == "finished"
    assert equal_weights(ours, straight)


def test_an_interrupt_before_the_first_step_leaves_ctrl_c_as_it_was_and_no_run() -> None:
    class Early(lightning.Callback):
        def on_fit_start(self, *rest: Any) -> None:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(made(), xy(), name="early", callbacks=[Early()])
    assert signal.getsignal(signal.SIGINT) == handler
    assert run_names() == []
