"""The weight of a batch in a mean, for evaluation, accumulation and several processes alike.

The first of these that applies:

1. What the step says: ``{"loss": ..., "count": n}``, the number of things (samples, tokens, ...) that its values are
   means over.
2. What was seen while the value was computed; see `darkit.engine.metrics.denominators`.
3. Where neither is known: the labels of tokens that are not -100, or else the samples of the batch.
4. One. Then it is said once.

A mean is added up in double precision; where a device has none, in single precision.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.data.samples import count_samples, count_targets
from darkit.engine.device import widest_float
from darkit.engine.log.values import number_of
from darkit.engine.metrics.denominators import Denominators, Weight, can_be_watched
from darkit.engine.metrics.gathering import computed, is_metric
from darkit.errors import LossError

logger = logging.getLogger(__name__)
_TOLD: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models whose loss was warned of
_TOLD_VALUES: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()  # values warned of
COUNT = "count"
"""The key under which a step returns the number of things that its values are means over."""


@dataclass(frozen=True)
class Weighed:
    """The values of one batch and their weights.

    Attributes:
        values: Numbers by name, ``loss`` among them.
        weights: How much each counts.
    """

    values: dict[str, Any]
    weights: dict[str, Weight]


class Weigher:
    """Computes batches and finds out how much they count.

    Args:
        model: The user's model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._unknown = 0
        self._no_means: dict[str, int] = {}
        self._watches: bool | None = None

    def __call__(self, compute: Callable[[], Mapping[str, Any]], batch: Any) -> Weighed:
        """Computes one batch.

        Args:
            compute: Returns the values by name.
            batch: The batch.

        Raises:
            LossError: ``count`` is not a number of at least 0, or names something that was not returned.
        """
        if self._watches is None:
            self._watches = can_be_watched(self.model)
        seen = Denominators()
        with seen if self._watches else nullcontext():
            values = dict(compute())
        said = _said(values)
        weights: dict[str, Weight] = {}
        usual: Weight | None = None
        for name, value in values.items():
            weight = said.get(name, seen.weight_of(value))
            if weight is None:
                usual = self._usual(batch) if usual is None else usual
                weight = usual
                if name == "loss":
                    self._tell(seen.is_sum(value), batch)
                elif seen.is_sum(value) or seen.is_curved(value):
                    self._tell_of_no_mean(name, "is a sum over a batch" if seen.is_sum(value) else "is no mean")
            weights[name] = weight
        return Weighed(values, weights)

    def _usual(self, batch: Any) -> Weight:
        targets = count_targets(batch, self.model)
        if targets is not None:
            return _number(targets)  # type: ignore[no-any-return]
        samples = count_samples(batch)
        return 1.0 if samples is None else float(samples)

    def _tell(self, is_sum: bool, batch: Any) -> None:
        """Warns once, as soon as there is more than one batch to average over."""
        self._unknown += 1
        if self._unknown < 2 or self.model in _TOLD:
            return
        _TOLD.add(self.model)
        if count_targets(batch, self.model) is not None:
            by = "by their labels that are not -100"
        else:
            by = "equally" if count_samples(batch) is None else "by their samples"
        logger.warning(
            "%s; batches are weighted %s. Return {'loss': loss, 'count': n} from the step to weight them by n, the "
            "number of samples or targets that the loss is the mean of.",
            "The loss is a sum and not a mean" if is_sum else "Cannot tell what the loss is the mean of",
            by,
        )

    def _tell_of_no_mean(self, name: str, what: str) -> None:
        """Warns once of a value whose mean is not its value over all batches, as soon as there are several."""
        self._no_means[name] = self._no_means.get(name, 0) + 1
        told = _TOLD_VALUES.setdefault(self.model, set())
        if self._no_means[name] < 2 or name in told:
            return
        told.add(name)
        logger.warning(
            "%r %s, so its average over batches depends on the batch size. Return a mean that it can be computed from, "
            "or a torchmetrics object.",
            name,
            what,
        )


class Means:
    """Means by name over batches, each over the batches that have a value of that name."""

    def __init__(self) -> None:
        self._totals: dict[str, _Total] = {}
        self._metrics: dict[str, Any] = {}

    def add(self, weighed: Weighed) -> None:
        """Takes the values of one batch; a torchmetrics object has taken the batch itself."""
        for name, value in weighed.values.items():
            if is_metric(value):
                self._metrics[name] = value
                continue
            total = self._totals.setdefault(name, _Total())
            total.add(_number(value), 1.0 if name == COUNT else weighed.weights[name])

    def merge(self, others: list[Means]) -> Means:
        """Returns the means over what several processes took."""
        merged = Means()
        for means in others:
            for name, total in means._totals.items():
                found = merged._totals.setdefault(name, _Total())
                found.sum, found.weight = found.sum + total.sum, found.weight + total.weight
        return merged

    def compute_metrics(self) -> dict[str, Tensor]:
        """Computes the torchmetrics objects that were among the values, and lets them begin anew."""
        found: dict[str, Tensor] = {}
        for name, metric in self._metrics.items():
            for key, value in computed(name, metric).items():
                number = number_of(key, value)
                if number is None:
                    logger.warning("The metric %r is not logged: it is not a single number.", key)
                else:
                    found[key] = torch.as_tensor(number).detach().clone()
            metric.reset()
        return found

    def on_host(self) -> Means:
        """Returns the same on the host, waiting for the accelerator."""
        copied = Means()
        copied._totals = {name: _Total(_float(one.sum), _float(one.weight)) for name, one in self._totals.items()}
        return copied

    def result(self) -> dict[str, Tensor]:
        """Returns the means, each a tensor without dimensions; of ``count`` the sum."""
        return {
            name: torch.as_tensor(total.sum if name == COUNT else total.mean(), dtype=_wide(total.sum))
            for name, total in self._totals.items()
        }


@dataclass
class _Total:
    sum: Any = field(default=0)
    weight: Any = field(default=0)

    def add(self, value: Any, weight: Weight) -> None:
        if isinstance(weight, Tensor):
            value = torch.where(weight > 0, value, torch.zeros_like(weight, dtype=_wide(weight)))
        elif weight == 0:  # a mean of nothing, which may well be nan
            return
        self.sum = self.sum + value * weight
        self.weight = self.weight + weight

    def mean(self) -> Any:
        return self.sum / self.weight if isinstance(self.weight, Tensor) or self.weight else math.nan


def _said(values: Mapping[str, Any]) -> dict[str, Weight]:
    """Reads what a step says that its values are means over."""
    said = values.get(COUNT)
    if said is None:
        return {}
    count = _number(said)
    if not isinstance(count, Tensor) and not (math.isfinite(count) and count >= 0):
        raise LossError(f"The step's 'count' must be a number of at least 0, not {count!r}.")
    return dict.fromkeys(values, count)


def _number(value: Any) -> Any:
    """Returns a value of the host as a number, and one on an accelerator as a tensor there, in double precision."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    return value.item() if value.device.type == "cpu" else value.reshape(()).to(_wide(value))


def _float(value: Any) -> float:
    return float(value.item() if isinstance(value, Tensor) else value)


def _wide(value: Any) -> torch.dtype:
    return widest_float(value.device) if isinstance(value, Tensor) else torch.float64
