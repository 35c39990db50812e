"""Callbacks through which a `Trainer` follows the engine that trains its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from torch import nn

from darkit.engine.callbacks.evaluate import StepEvaluate
from darkit.engine.log.values import number_of
from darkit.engine.metrics.gathering import fresh_metrics
from darkit.engine.metrics.undisturbed import evaluating


class FollowSteps(lightning.Callback):
    """Report the engine's start, and its step after every batch.

    Args:
        attach: Gets Lightning's trainer and module.
        follow: Gets the number of completed steps.
    """

    def __init__(
        self,
        attach: Callable[[lightning.Trainer, lightning.LightningModule], None],
        follow: Callable[[int], None],
    ) -> None:
        self.attach = attach
        self.follow = follow

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.attach(trainer, pl_module)

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.follow(trainer.global_step)


class OwnEvaluation(StepEvaluate):
    """Evaluate with a trainer's own ``validate``.

    Args:
        validate: Returns the metrics of the batches.
        follow: Gets the number of completed steps before that.
        arguments: Those of `StepEvaluate`.
    """

    def __init__(self, validate: Callable[[Any], dict[str, float]], follow: Callable[[int], None], *arguments: Any):
        super().__init__(*arguments)
        self.validate = validate
        self.follow = follow

    def evaluate(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        self.follow(trainer.global_step)
        return self.validate(self.batches)


def validation_metrics(model: nn.Module, validate: Callable[[Any], Any], batches: Any) -> dict[str, float]:
    """Call ``validate`` in evaluation mode and without gradients, and leave the model as it was.

    Returns:
        Its numbers by name; a bare number is ``val_loss``.

    Raises:
        LogError: A number is complex or too large.
    """
    with evaluating(model), fresh_metrics(model), torch.no_grad():
        result = validate(batches)
    if result is None:
        return {}
    values = result if isinstance(result, Mapping) else {"val_loss": result}
    numbers = {str(key): number_of(str(key), value) for key, value in values.items()}
    return {key: float(value) for key, value in numbers.items() if value is not None}
