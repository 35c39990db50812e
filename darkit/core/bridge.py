"""What ties a trainer to the engine while that trains its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning
import torch

from darkit.engine.callbacks.evaluate import StepEvaluate
from darkit.engine.log.values import number_of
from darkit.engine.metrics.gathering import fresh_metrics
from darkit.engine.metrics.undisturbed import evaluating

if TYPE_CHECKING:
    from darkit.core.trainer import Trainer


class FollowSteps(lightning.Callback):
    """Keeps a trainer's ``current_step`` true, and shows it the engine while that is at work."""

    def __init__(self, owner: Trainer) -> None:
        self.owner = owner

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.owner._engine = (trainer, pl_module)

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        follow(self.owner, trainer)


class OwnEvaluation(StepEvaluate):
    """Evaluates with a trainer's own ``validate``."""

    def __init__(self, owner: Trainer, batches: Any, every: int, iters: int, compute: Any) -> None:
        super().__init__(batches, every, iters, compute)
        self.owner = owner

    def evaluate(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        follow(self.owner, trainer)
        return validation_metrics(self.owner, self.batches)


def follow(owner: Trainer, trainer: lightning.Trainer) -> None:
    """Tells a trainer of the engine's step."""
    owner.current_step = max(0, trainer.global_step - 1)
    owner._keeper.step = trainer.global_step


def validation_metrics(owner: Trainer, batches: Any) -> dict[str, float]:
    """Calls a trainer's ``validate`` in evaluation mode and without gradients; the model is as before afterwards.

    Returns:
        Its numbers by name; a bare number is ``val_loss``.

    Raises:
        LogError: A number is complex or too large.
    """
    with evaluating(owner.model), fresh_metrics(owner.model), torch.no_grad():
        result = owner.validate(batches)
    if result is None:
        return {}
    values = result if isinstance(result, Mapping) else {"val_loss": result}
    numbers = {str(key): number_of(str(key), value) for key, value in values.items()}
    return {key: float(value) for key, value in numbers.items() if value is not None}
