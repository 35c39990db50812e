"""Saves each step that is the best so far."""

from __future__ import annotations

from lightning import Trainer

from darkit.engine.callbacks.checkpoint import StepCheckpoint
from darkit.engine.callbacks.monitor import BestCallback


class SaveBest(BestCallback):
    """Make a later `StepCheckpoint` save every step whose metric is the best so far.

    Args:
        checkpoint: The callback that saves.
        monitor: As for `BestCallback`, like the next two.
        mode: ``min`` or ``max``.
        every: Steps between values of a training metric.
    """

    def __init__(
        self, checkpoint: StepCheckpoint, monitor: str = "val_loss", mode: str = "min", every: int = 1
    ) -> None:
        super().__init__(monitor, mode, every)
        self.checkpoint = checkpoint

    def on_value(self, trainer: Trainer, step: int, *, is_best: bool) -> None:
        if is_best:
            self.checkpoint.wanted = step
