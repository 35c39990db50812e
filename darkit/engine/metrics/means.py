"""The weight of a batch in a mean, for evaluation, accumulation and several processes alike.

The first of these that applies:

1. The ``count`` that the step returns: ``{"loss": ..., "count": n}``, the number of items (samples, tokens, ...) that
   its values are means over.
2. The denominator observed in the computation; see `darkit.engine.metrics.denominators`.
3. The number of token labels that are not -100, or else the number of samples.
4. One, with a single warning.

Sums are in double precision, or in single precision on devices without it.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.data.samples import count_samples, count_targets
from darkit.engine.device import widest_float
from darkit.engine.log.values import number_of
from darkit.engine.metrics.denominators import Denominators, ObservedLoss, Weight, can_be_observed
from darkit.engine.metrics.gathering import computed, is_metric
from darkit.errors import LossError

logger = logging.getLogger(__name__)
_WARNED: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()  # values with a warning
COUNT = "count"
"""The key under which a step returns the denominator of its values."""


@dataclass(frozen=True)
class Weighed:
    """The values of one batch and their weights.

    Attributes:
        values: Numbers by name, ``loss`` among them.
        weights: Weight of each value in a mean.
        safe: Whether the gradient of a loss over no items is surely zero, and not nan.
    """

    values: dict[str, Any]
    weights: dict[str, Weight]
    safe: bool = False

    def uncounted(self) -> Weighed:
        """Return the same values with a weight of 0."""
        return Weighed(self.values, dict.fromkeys(self.weights, 0.0))


class Weigher:
    """Compute batches of a user's model and their weights.

    Args:
        model: The model.
        loss: The loss in these computations, if its call is enough to observe.
    """

    def __init__(self, model: nn.Module, loss: ObservedLoss | None = None) -> None:
        self.model = model
        self._loss = loss
        self._unsure: Counter[str] = Counter()  # batches with a value that may be averaged wrongly
        self._observes: bool | None = None

    def __call__(self, compute: Callable[[], Mapping[str, Any]], batch: Any) -> Weighed:
        """Compute one batch; ``compute`` returns its values by name.

        Raises:
            LossError: ``count`` is not a number of at least 0.
        """
        seen = Denominators()
        values = dict(self._observed(compute, seen))
        counted = _counted(values)
        weights: dict[str, Weight] = {}
        usual: Weight | None = None
        for name, value in values.items():
            weight = counted.get(name, seen.weight_of(value))
            if weight is None:
                usual = self._usual(batch) if usual is None else usual
                weight = usual
                is_sum = seen.is_sum(value)
                if (name == "loss" or is_sum or seen.is_nonlinear(value)) and self._is_worth_warning(name):
                    self._warn(name, is_sum, batch)
            weights[name] = weight
        return Weighed(values, weights, seen.is_safe(values.get("loss")))

    def _observed(self, compute: Callable[[], Mapping[str, Any]], seen: Denominators) -> Mapping[str, Any]:
        if self._loss is not None:
            self._loss.seen = seen
            try:
                return compute()
            finally:
                self._loss.seen = None
        if self._observes is None:
            self._observes = can_be_observed(self.model)
        with seen if self._observes else nullcontext():
            return compute()

    def _usual(self, batch: Any) -> Weight:
        targets = count_targets(batch, self.model)
        if targets is not None:
            return _number(targets)  # type: ignore[no-any-return]
        samples = count_samples(batch)
        return 1.0 if samples is None else float(samples)

    def _is_worth_warning(self, name: str) -> bool:
        """Return whether to warn of a value: once, from the second batch on."""
        self._unsure[name] += 1
        warned = _WARNED.setdefault(self.model, set())
        if self._unsure[name] < 2 or name in warned:
            return False
        warned.add(name)
        return True

    def _warn(self, name: str, is_sum: bool, batch: Any) -> None:
        if name != "loss":
            logger.warning(
                "%r %s, so its average over batches depends on the batch size. Return a mean from which it can be "
                "computed, or a torchmetrics object.",
                name,
                "is a sum over a batch" if is_sum else "is not a mean",
            )
            return
        if count_targets(batch, self.model) is not None:
            by = "by the number of labels that are not -100"
        else:
            by = "equally" if count_samples(batch) is None else "by the number of samples"
        logger.warning(
            "%s; batches are weighted %s. Return {'loss': loss, 'count': n} from the step to weight them by n, the "
            "number of samples or targets that the loss is the mean of.",
            "The loss is a sum and not a mean" if is_sum else "The denominator of the loss is unknown",
            by,
        )


class Means:
    """Weighted means by name, each over the batches with a value of that name.

    Attributes:
        metrics: The torchmetrics objects among the values, by name.
    """

    def __init__(self) -> None:
        self._totals: dict[str, _Total] = {}
        self.metrics: dict[str, Any] = {}

    def add(self, weighed: Weighed) -> None:
        """Add the values of one batch; torchmetrics objects are already updated."""
        for name, value in weighed.values.items():
            if is_metric(value):
                self.metrics[name] = value
                continue
            total = self._totals.setdefault(name, _Total())
            total.add(_number(value), 1.0 if name == COUNT else weighed.weights[name])

    def merge(self, others: list[Means]) -> Means:
        """Return the means over several processes."""
        merged = Means()
        for means in others:
            for name, total in means._totals.items():
                found = merged._totals.setdefault(name, _Total())
                found.sum, found.weight = found.sum + total.sum, found.weight + total.weight
        return merged

    def compute_metrics(self) -> dict[str, Tensor]:
        """Compute and reset the torchmetrics objects among the values."""
        found: dict[str, Tensor] = {}
        for name, metric in sorted(self.metrics.items()):  # several processes must compute them in the same order
            for key, value in computed(name, metric).items():
                number = number_of(key, value)
                if number is None:
                    logger.warning("The metric %r is not logged: it is not a single number.", key)
                else:
                    found[key] = torch.as_tensor(number).detach().clone()
            metric.reset()
        return found

    def weights(self) -> dict[str, Weight]:
        """Return the weight of each mean."""
        return {name: total.weight for name, total in self._totals.items()}

    def mean(self, name: str) -> Any:
        """Return one mean; nan over no items."""
        return self._totals[name].mean()

    def on_host(self) -> Means:
        """Return a copy on the host; waits for the accelerator."""
        copied = Means()
        copied._totals = {name: _Total(_float(one.sum), _float(one.weight)) for name, one in self._totals.items()}
        return copied

    def result(self) -> dict[str, Tensor]:
        """Return the means as scalar tensors; for ``count`` the sum."""
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
        elif weight == 0:  # a mean over no items, possibly nan
            return
        self.sum = self.sum + value * weight
        self.weight = self.weight + weight

    def mean(self) -> Any:
        return self.sum / self.weight if isinstance(self.weight, Tensor) or self.weight else math.nan


def _counted(values: Mapping[str, Any]) -> dict[str, Weight]:
    """Return the weights from a step's ``count``."""
    counted = values.get(COUNT)
    if counted is None:
        return {}
    count = _number(counted)
    if not isinstance(count, Tensor) and not (math.isfinite(count) and count >= 0):
        raise LossError(f"The step's 'count' must be a number of at least 0, not {count!r}.")
    return dict.fromkeys(values, count)


def _number(value: Any) -> Any:
    """Return a number for a CPU value, and a double-precision tensor for one on an accelerator."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    return value.item() if value.device.type == "cpu" else value.reshape(()).to(_wide(value))


def _float(value: Any) -> float:
    return float(value.item() if isinstance(value, Tensor) else value)


def _wide(value: Any) -> torch.dtype:
    return widest_float(value.device) if isinstance(value, Tensor) else torch.float64
