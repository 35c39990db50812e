"""Refuses to compare checkpoints by a metric that no step has."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer

from darkit.engine.callbacks.base import StepCallback, log_values
from darkit.engine.metrics.gathering import require_metric


class RequireMetric(StepCallback):
    """Raise as soon as a metric is certain to be missing: after the first evaluation, or the first step.

    A metric that a user's callback may add can come later, unless it has the prefix ``val_``.

    Args:
        name: The metric, such as ``val_loss``.
        evaluates: Whether the training evaluates.
        others: Whether a user's callbacks may add metrics.
    """

    def __init__(self, name: str, *, evaluates: bool = True, others: bool = False) -> None:
        self.name = name
        self.evaluates = evaluates
        self.others = others
        self._seen: set[str] = set()

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        """Check the step's metrics until the metric was found. Raises `ConfigError`."""
        if self.name not in self._seen:
            self._seen |= log_values(trainer, outputs).keys()
            if self.name.startswith("val_") or not self.others:
                require_metric(self.name, self._seen, step, now=not (self.evaluates or self.others))
