"""Exponential moving averages of the weights, for evaluation and checkpoints."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from darkit.engine.callbacks.base import EveryStepCallback
from darkit.engine.steps.adapter import bare_module
from darkit.engine.steps.averages import Averages
from darkit.errors import ConfigError


class EmaWeights(EveryStepCallback):
    """Average the weights after every step; it comes before `StepEvaluate` and `StepCheckpoint`, which use them.

    The training continues with the raw weights. `StepEvaluate` evaluates the averages, and `StepCheckpoint` saves them
    as ``state_dict`` and the raw weights as ``raw_state_dict``. Lightning's own validation is not changed.

    Args:
        averages: The averages, or their decay.

    Raises:
        ConfigError: The decay is out of range, or, when the training starts, the strategy splits the weights.
    """

    def __init__(self, averages: Averages | float) -> None:
        self.averages = averages if isinstance(averages, Averages) else Averages(averages)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ConfigError(f"ema_decay needs whole weights, which {type(trainer.strategy).__name__} does not have.")
        self.averages.attach(bare_module(pl_module))

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        self.averages.update()

    def state_dict(self) -> dict[str, Any]:
        return self.averages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averages.load_state_dict(state)
