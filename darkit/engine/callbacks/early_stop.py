"""Early stopping: end the training when a metric no longer improves."""

from __future__ import annotations

from typing import Any

from lightning import Trainer

from darkit.engine.callbacks.base import check_interval
from darkit.engine.callbacks.monitor import BestCallback


class EarlyStop(BestCallback):
    """Set ``trainer.should_stop`` after so many values of a metric in a row without an improvement.

    Its state is saved and restored with a checkpoint, so that a resumed training stops at the same step.

    Args:
        patience: Number of values without an improvement that end the training, at least 1.
        monitor: As for `BestCallback`, like the next two.
        mode: ``min`` or ``max``.
        every: Steps between values of a training metric.

    Attributes:
        reason: Why the training was stopped, or empty.
    """

    def __init__(self, patience: int, monitor: str = "val_loss", mode: str = "min", every: int = 1) -> None:
        super().__init__(monitor, mode, every)
        self.patience = check_interval("patience", patience, 1)
        self.waited = 0
        self.reason = ""

    def on_value(self, trainer: Trainer, step: int, *, is_best: bool) -> None:
        self.waited = 0 if is_best else self.waited + 1
        if self.waited >= self.patience:
            trainer.should_stop = True
            self.reason = describe_stop(self.state_dict(), step)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.waited = state["waited"] if self.has_metric_of(state) else 0


def describe_stop(state: dict[str, Any], step: int) -> str:
    """Return why a training was stopped, from an `EarlyStop`'s state."""
    monitor, best = state["monitor"], state["best"]
    before = f"the best is {best:.6g} at step {state['best_step']}" if best is not None else "it was never finite"
    waited = "the last value" if state["waited"] == 1 else f"the last {state['waited']} values"
    return f"Stopped early at step {step}: {waited} of {monitor} did not improve ({before})."


def stopped_early(state: dict[str, Any], patience: int) -> str:
    """Return why a checkpoint's training was stopped early; empty if it was not, or if the patience is larger now."""
    found = (state.get("callbacks") or {}).get(EarlyStop.__qualname__)
    return describe_stop(found, state["current_step"]) if found and 0 < patience <= found["waited"] else ""
