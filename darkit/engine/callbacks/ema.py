"""Keeps an exponential moving average of the weights, which is what is evaluated and saved."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from darkit.engine.callbacks.base import EveryStepCallback
from darkit.engine.steps.adapter import bare_module
from darkit.engine.steps.averages import Averages
from darkit.errors import ConfigError


class EmaWeights(EveryStepCallback):
    """Averages the weights after every step; it comes before `StepEvaluate` and `StepCheckpoint`, which use them.

    The training goes on with its own weights. `StepEvaluate` evaluates the averages, and `StepCheckpoint` saves them as
    ``state_dict`` and the weights of the training as ``raw_state_dict``. Lightning's own validation is not changed.

    Args:
        averages: The averages, or their decay.

    Raises:
        ConfigError: The decay is out of its range, or, when the training starts, the strategy splits the weights.
    """

    def __init__(self, averages: Averages | float) -> None:
        self.averages = averages if isinstance(averages, Averages) else Averages(averages)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes the module's parameters where they are now."""
        super().on_train_start(trainer, pl_module)
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ConfigError(f"ema_decay needs whole weights, which {type(trainer.strategy).__name__} does not have.")
        self.averages.attach(bare_module(pl_module))

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Averages the step's weights in."""
        self.averages.update()

    def state_dict(self) -> dict[str, Any]:
        """Returns what the checkpoint's weights do not tell of the averages."""
        return self.averages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.averages.load_state_dict(state)
