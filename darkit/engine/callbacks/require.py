"""Refuses to compare checkpoints by a metric that no step has."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer

from darkit.engine.callbacks.base import StepCallback, is_compared, log_values, over_processes
from darkit.engine.metrics.gathering import require_metric


class RequireMetric(StepCallback):
    """Raise as soon as a metric is certain to be missing: after the first evaluation, or the first step.

    A metric that a user's callback may add can come later, unless it has the prefix ``val_``.

    Args:
        name: The metric, such as ``val_loss``.
        evaluates: Whether the training evaluates.
        others: Whether a user's callbacks may add metrics.
        every: As for `darkit.engine.callbacks.monitor.BestCallback`.
    """

    def __init__(self, name: str, *, evaluates: bool = True, others: bool = False, every: int = 1) -> None:
        self.name = name
        self.evaluates = evaluates
        self.others = others
        self.every = every
        self._seen: set[str] = set()

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        """Check the step's metrics until the metric was found. Raises `ConfigError`."""
        validation = self.name.startswith("val_")
        if self.name in self._seen or (self.others and not validation):
            return
        if validation and not is_compared(trainer, self.name, step, self.every):
            return
        self._seen |= over_processes(trainer, pl_module, log_values(trainer, outputs), self.name).keys()
        require_metric(self.name, self._seen, step, now=not (self.evaluates or self.others))
