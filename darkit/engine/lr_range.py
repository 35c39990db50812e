"""The learning-rate range test: one short training whose learning rate grows exponentially, step by step.

After Smith 2017, "Cyclical Learning Rates for Training Neural Networks"; the smoothing and the end at a diverging loss
follow fastai's `lr_find`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from lightning import Callback, LightningModule, Trainer

from darkit.engine.steps.adapter import Adapter
from darkit.errors import ConfigError

SMOOTHED = "smoothed_loss"
EXPONENT = "log10_lr"  # in which the rates are evenly spaced
_DECAY = 0.9  # of the smoothed loss
_DIVERGED = 4.0  # times the lowest smoothed loss, if that is above 0
_FEWEST = 8  # steps that a suggestion needs
_FIRST = 10  # steps, at most, after which the average stands for the loss of the start
_WINDOW = 10**0.5  # times the rate, below and above it, between which the slope is taken
_WIDEST = 100.0  # times its lower end, the upper end of a range that is worth trying


@dataclass
class LrRange(Callback):
    """Raise the learning rate from ``low`` to ``high`` over the steps; stop once the loss has diverged.

    Attributes:
        low: The learning rate of the first step.
        high: The learning rate of the last step.
        steps: The number of steps.
        rates: The learning rate of each step.
        losses: The smoothed loss after each step.
        module: The class of a LightningModule that makes its own optimizer; empty if the settings make it.
    """

    low: float
    high: float
    steps: int
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    module: str = ""
    _average: float = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a training that has no single learning rate. Raises `ConfigError`."""
        self.module = "" if isinstance(pl_module, Adapter) else type(pl_module).__name__
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
        """Add the smoothed loss of a completed step, and the exponent of its rate, to its values."""
        step = pl_module.steps if isinstance(pl_module, Adapter) else trainer.global_step
        if step == len(self.losses) or not outputs:
            return
        loss = float(outputs["loss"])
        self._average = _DECAY * self._average + (1 - _DECAY) * loss
        smoothed = self._average / (1 - _DECAY**step)
        self.rates.append(rate_of(self.low, self.high, len(self.losses), self.steps))
        self.losses.append(smoothed)
        outputs[SMOOTHED], outputs[EXPONENT] = smoothed, math.log10(self.rates[-1])
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

    The slope is over the logarithm of the rate, from half a decade below to half a decade above, up to the lowest loss.
    Rates count where the smoothed loss is below that of the first steps by more than the noise of single losses: the
    average of the first few is as noisy as they are.

    Returns:
        Both, or None where the loss never fell that far or too few steps are finite.
    """
    finite = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    if finite < _FEWEST:
        return None
    first = min(_FIRST, finite // 10 + 1) - 1  # the step whose average stands for the start
    lowest = min(range(first, finite), key=lambda place: losses[place])
    fallen = losses[first] - _noise(losses[: lowest + 1])
    if not losses[lowest] < fallen:
        return None
    half = max(1, round((finite - 1) * math.log(_WINDOW) / math.log(rates[finite - 1] / rates[0])))

    def slope(place: int) -> float:
        below, above = max(place - half, 0), min(place + half, lowest)
        return (losses[above] - losses[below]) / math.log(rates[above] / rates[below])

    places = [place for place in range(first, lowest + 1) if losses[place] <= fallen]
    return rates[min(places, key=slope)], rates[lowest] / 10


def _noise(losses: Sequence[float]) -> float:
    """Return the standard deviation of the single losses behind smoothed ones, from the differences of neighbours."""
    sums = [loss * (1 - _DECAY**step) for step, loss in enumerate(losses, 1)]
    single = [(sum_ - _DECAY * before) / (1 - _DECAY) for before, sum_ in zip([0.0, *sums], sums, strict=False)]
    differences = [abs(after - before) for before, after in pairwise(single)]
    return 1.05 * median(differences) if differences else 0.0  # of normal noise: 1.4826 / sqrt(2)


def rates_to_try(steepest: float, tenth: float) -> tuple[float, ...]:
    """Return the ends of the range that the two suggested rates bound, or the higher alone if that spans too much."""
    low, high = sorted((steepest, tenth))
    return (low, high) if high <= _WIDEST * low else (high,)
