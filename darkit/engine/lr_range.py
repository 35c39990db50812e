"""The learning-rate range test: one short training whose learning rate grows exponentially, step by step.

After Smith 2017, "Cyclical Learning Rates for Training Neural Networks"; the smoothing and the end at a diverging loss
follow fastai's `lr_find`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning import Callback, LightningModule, Trainer

from darkit.engine.steps.adapter import Adapter
from darkit.errors import ConfigError

SMOOTHED = "smoothed_loss"
_DECAY = 0.9  # of the smoothed loss
_DIVERGED = 4.0  # times the lowest smoothed loss, if that is above 0
_FEWEST = 8  # steps that a suggestion needs


@dataclass
class LrRange(Callback):
    """Raise the learning rate from ``low`` to ``high`` over the steps; stop once the loss has diverged.

    Attributes:
        low: The learning rate of the first step.
        high: The learning rate of the last step.
        steps: The number of steps.
        rates: The learning rate of each step.
        losses: The smoothed loss after each step.
    """

    low: float
    high: float
    steps: int
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _average: float = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a training that has no single learning rate. Raises `ConfigError`."""
        rates = {float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups}
        if len(trainer.optimizers) != 1 or len(rates) != 1:
            raise ConfigError(
                f"The range of one learning rate can be tested, but the training has {len(trainer.optimizers)} "
                f"optimizer(s) with the learning rates {', '.join(f'{rate:g}' for rate in sorted(rates))}."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the learning rate of the step that begins."""
        rate = rate_of(self.low, self.high, len(self.losses), self.steps)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the smoothed loss of a completed step to its values."""
        step = pl_module.steps if isinstance(pl_module, Adapter) else trainer.global_step
        if step == len(self.losses) or not outputs:
            return
        loss = float(outputs["loss"])
        self._average = _DECAY * self._average + (1 - _DECAY) * loss
        smoothed = self._average / (1 - _DECAY**step)
        self.rates.append(rate_of(self.low, self.high, len(self.losses), self.steps))
        self.losses.append(smoothed)
        outputs[SMOOTHED] = smoothed
        if not math.isfinite(loss) or (len(self.losses) > _FEWEST and smoothed > limit_of(self.losses)):
            trainer.should_stop = True

    def __hash__(self) -> int:
        return id(self)


def limit_of(losses: Sequence[float]) -> float:
    """Return the smoothed loss above which a training has diverged.

    It is a multiple of the lowest one or, where that is not above 0, as far above it in multiples of its size or of the
    fall to it.
    """
    lowest = min(losses)
    if lowest > 0:
        return _DIVERGED * lowest
    return lowest + (_DIVERGED - 1) * max(-lowest, losses[0] - lowest)


def rate_of(low: float, high: float, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0, of so many."""
    return float(low * (high / low) ** (step / max(steps - 1, 1)))


def suggest(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, float] | None:
    """Return two learning rates: where the smoothed loss falls fastest, and a tenth of that of the lowest loss.

    The slope is over the logarithm of the rate, by central differences, up to the lowest loss.

    Returns:
        Both, or None where the loss never fell or too few steps are finite.
    """
    finite = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    if finite < _FEWEST:
        return None
    lowest = min(range(finite), key=lambda place: losses[place])
    slopes = {
        place: (losses[place + 1] - losses[place - 1]) / math.log(rates[place + 1] / rates[place - 1])
        for place in range(1, min(lowest + 1, finite - 1))
    }
    if not slopes or min(slopes.values()) >= 0:
        return None
    return rates[min(slopes, key=lambda place: slopes[place])], rates[lowest] / 10
