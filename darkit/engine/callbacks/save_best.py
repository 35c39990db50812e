"""Saves each step that is the best so far."""

from __future__ import annotations

from typing import Any

import lightning

from darkit.engine.callbacks.base import EveryStepCallback, check_interval
from darkit.engine.callbacks.checkpoint import StepCheckpoint
from darkit.engine.callbacks.monitor import Best


class SaveBest(EveryStepCallback):
    """Makes a later `StepCheckpoint` save every step whose metric is the best so far.

    Args:
        checkpoint: The callback that saves.
        monitor: The metric, by its name in the log.
        mode: ``min`` or ``max``: whether a smaller or a larger value is better.
        every: Steps between values of a training metric; 0 reads the last step only.
    """

    def __init__(
        self, checkpoint: StepCheckpoint, monitor: str = "val_loss", mode: str = "min", every: int = 1
    ) -> None:
        self.checkpoint = checkpoint
        self.every = check_interval("every", every, 0)
        self.best = Best(monitor, mode)

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Request a checkpoint of a step that is the best so far."""
        value = self.best.read(trainer, outputs, step, self.every)
        if value is not None and self.best.update(value, step):
            self.checkpoint.wanted = step

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return self.best.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best value so far."""
        self.best.load_state_dict(state)
