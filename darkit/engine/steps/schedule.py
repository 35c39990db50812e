"""When a learning-rate schedule is stepped: after every step, every epoch, or with a new value of its metric."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from darkit.engine.aliases import plain_number
from darkit.engine.config import TrainerConfig
from darkit.engine.metrics.gathering import require_metric
from darkit.engine.steps.optim import learning_rate_factor
from darkit.errors import ConfigError

logger = logging.getLogger(__name__)
INTERVALS = ("step", "epoch")
_SETTINGS = ("scheduler", "interval", "frequency", "monitor", "strict", "reduce_on_plateau", "name")
_FORMS = "a torch schedule, a callable of the optimizer, (schedule, 'step' or 'epoch') or Lightning's dict"


class Schedule:
    """A torch schedule and when it is stepped.

    Args:
        scheduler: The torch schedule.
        interval: ``step`` or ``epoch``.
        frequency: Number of intervals between two steps of the schedule.
        monitor: The metric that the schedule is stepped with, or None. The schedule is stepped only with new values.
        strict: Whether it is an error when an evaluation does not return the metric.
        has_interval: Whether the user gave the interval.
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        interval: str = "step",
        frequency: int = 1,
        monitor: str | None = None,
        *,
        strict: bool = True,
        has_interval: bool = True,
    ) -> None:
        self.scheduler = scheduler
        self.interval = interval
        self.frequency = frequency
        self.monitor = monitor
        self.strict = strict
        self.has_interval = has_interval
        self._epochs = 0  # epochs whose end was handled
        self._value: Any = None
        self._seen = False

    def after_step(self, step: int) -> None:
        """Step a schedule without a metric if it is due after an optimizer step."""
        if self.monitor is None and self.interval == "step" and step % self.frequency == 0:
            self.scheduler.step()

    def after_values(self, step: int, values: Mapping[str, Any]) -> None:
        """Record the metrics of a step, and step a schedule with a metric if it is due.

        Raises:
            ConfigError: An evaluation did not return the metric.
        """
        if self.monitor is None:
            return
        if self.monitor in values:
            self._value, self._seen = values[self.monitor], True
        elif self.strict and not self._seen:
            require_metric(self.monitor, values, step)
        if self.interval == "step" and step % self.frequency == 0:
            self._step_with_value()

    def after_epoch(self, epoch: int) -> None:
        """Step a schedule by epochs at the end of a complete epoch; a second call for the same epoch does nothing."""
        if epoch < self._epochs:  # resumed at the end of an epoch, which ends once more
            return
        self._epochs = epoch + 1
        if self.interval != "epoch" or self._epochs % self.frequency:
            return
        if self.monitor is None:
            self.scheduler.step()
        else:
            self._step_with_value()

    def reach_epoch(self, epoch: int) -> None:
        """Step a schedule by epochs for those before this one that have ended, or were skipped, since it was saved."""
        for ended in range(self._epochs, epoch):
            self.after_epoch(ended)

    def check(self, config: TrainerConfig, step: int) -> None:
        """Compare the length of a schedule with the rest of the training.

        Raises:
            ConfigError: The schedule ends before the training; torch would raise an error there.
        """
        length = getattr(self.scheduler, "total_steps" if isinstance(self.scheduler, OneCycleLR) else "T_max", None)
        if self.interval != "step" or not isinstance(length, int) or config.max_step is None:
            return
        calls = config.max_step // self.frequency - step // self.frequency
        end = self.scheduler.last_epoch + calls
        name = type(self.scheduler).__name__
        if isinstance(self.scheduler, OneCycleLR) and length < end:
            raise ConfigError(
                f"The schedule {name} ends after total_steps={length}, but the training steps it {end} times until "
                f"max_step={config.max_step}. Make it with total_steps={end}."
            )
        if isinstance(self.scheduler, OneCycleLR | CosineAnnealingLR) and length != end:
            setting = "total_steps" if isinstance(self.scheduler, OneCycleLR) else "T_max"
            logger.warning(
                "The schedule %s is made for %s=%d, but the training steps it %d times until max_step=%d: it %s.",
                name,
                setting,
                length,
                end,
                config.max_step,
                "does not reach its end" if length > end else "starts to rise again",
            )

    def progress(self) -> dict[str, Any]:
        """Return the state for a checkpoint besides the torch schedule's own."""
        value = self._value.item() if isinstance(self._value, Tensor) else self._value
        return {"epochs": self._epochs, "value": None if value is None else float(value), "seen": self._seen}

    def restore(self, progress: Mapping[str, Any] | None, epoch: int) -> None:
        """Restore the state from `progress`; a checkpoint without it was made in ``epoch``."""
        found = progress or {"epochs": epoch, "value": None, "seen": False}
        self._epochs, self._value, self._seen = found["epochs"], found["value"], found["seen"]

    def _step_with_value(self) -> None:
        value, self._value = self._value, None
        if value is not None:
            self.scheduler.step(float(value))  # type: ignore[arg-type]


def make_schedule(optimizer: Optimizer, config: TrainerConfig, given: Any) -> Schedule | None:
    """Return the schedule of the learning rate; None for a constant one.

    Args:
        optimizer: The run's optimizer.
        config: The schedule by name, which is stepped after every step, and the default metric.
        given: The user's: a torch schedule, which is stepped after every step, a callable of the optimizer,
            ``(schedule, "step")``, ``(schedule, "epoch")`` or Lightning's dict, or None for the config's.

    Raises:
        ConfigError: ``given`` is not, and does not return, a schedule of this optimizer.
    """
    if given is None:
        if config.scheduler == "constant" and not config.warmup_step:
            return None
        return Schedule(LambdaLR(optimizer, lambda step: learning_rate_factor(step, config)))
    settings = _unpack(given)
    made = settings["scheduler"]
    if not isinstance(made, LRScheduler) and callable(made):
        settings = settings | _unpack(made(optimizer))
        made = settings["scheduler"]
    if not isinstance(made, LRScheduler):
        raise ConfigError(f"scheduler= must be or make {_FORMS}, not {type(made).__name__}.")
    if made.optimizer is not optimizer:
        raise ConfigError(
            "scheduler= is the schedule of another optimizer than the run's: give that one as optimizer=, or give a "
            "callable of the optimizer."
        )
    waits = isinstance(made, ReduceLROnPlateau) or bool(settings.get("reduce_on_plateau"))
    return Schedule(
        made,
        settings.get("interval", "step"),
        plain_number(settings.get("frequency", 1)),
        (settings.get("monitor") or config.monitor) if waits else None,
        strict=settings.get("strict", True),
        has_interval="interval" in settings or waits,
    )


def _unpack(given: Any) -> dict[str, Any]:
    """Convert a schedule in any form to the entries of Lightning's dict. Raises `ConfigError`."""
    if isinstance(given, Mapping):
        unknown = [str(key) for key in given if key not in _SETTINGS]
        if unknown or "scheduler" not in given:
            wrong = f"has the unknown key {unknown[0]!r}" if unknown else "has no key 'scheduler'"
            raise ConfigError(f"The dict of scheduler= {wrong}. Available: {', '.join(_SETTINGS)}.")
        settings = {"interval": "epoch", **given}  # Lightning's default
    elif isinstance(given, tuple | list):
        if len(given) != 2 or not isinstance(given[1], str):
            raise ConfigError(
                f"scheduler= must be {_FORMS}, not {given!r}. Several schedules are combined by SequentialLR or "
                "ChainedScheduler."
            )
        settings = {"scheduler": given[0], "interval": given[1]}
    else:
        settings = {"scheduler": given}
    if settings.get("interval", "step") not in INTERVALS:
        raise ConfigError(f"The interval of scheduler= must be 'step' or 'epoch', not {settings['interval']!r}.")
    frequency = plain_number(settings.get("frequency", 1))
    if not isinstance(frequency, int) or isinstance(frequency, bool) or frequency < 1:
        raise ConfigError(f"The frequency of scheduler= must be a whole number of at least 1, not {frequency!r}.")
    if not isinstance(settings.get("monitor") or "", str):
        raise ConfigError(f"The monitor of scheduler= must be the name of a metric, not {settings['monitor']!r}.")
    return settings
