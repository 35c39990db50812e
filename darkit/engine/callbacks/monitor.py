"""The best value of a metric so far, for callbacks that watch one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
from torch import Tensor

from darkit.engine.callbacks.base import is_due, log_values
from darkit.engine.metrics.gathering import require_metric
from darkit.errors import ConfigError
from darkit.runs.best import is_better


class Best:
    """The best value of a metric so far; a value that is not finite is never the best.

    Args:
        monitor: The metric, by its name in the log.
        mode: ``min`` or ``max``: whether a smaller or a larger value is better.

    Attributes:
        value: The best value, or None.
        step: Its step.

    Raises:
        ConfigError: The mode is unknown.
    """

    def __init__(self, monitor: str, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"mode must be one of min, max, not {mode!r}.")
        self.monitor = monitor
        self.mode = mode
        self.value: float | None = None
        self.step = 0

    def read(self, trainer: lightning.Trainer, outputs: Mapping[str, Any], step: int, every: int) -> float | None:
        """Return the metric of a step at which it counts, or None.

        A validation metric counts at every evaluation; a training metric every so many steps, because reading it waits
        for the accelerator.

        Raises:
            ConfigError: An evaluation did not return it.
        """
        validation = self.monitor.startswith("val_")
        if not validation and not is_due(trainer, step, every):
            return None
        values = log_values(trainer, outputs)
        if self.monitor not in values:
            if validation or self.step == 0:
                require_metric(self.monitor, values, step, now=not validation)
            return None
        value = values[self.monitor]
        if trainer.world_size > 1 and not validation:
            value = trainer.strategy.reduce(value, reduce_op="mean")
        return value.item() if isinstance(value, Tensor) else float(value)

    def update(self, value: float, step: int) -> bool:
        """Record a value; return whether it is the best so far."""
        if not is_better(value, self.value, self.mode):
            return False
        self.value, self.step = value, step
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and its step."""
        return {"monitor": self.monitor, "mode": self.mode, "best": self.value, "best_step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Restore the best value, unless it is that of another metric; return whether it was restored."""
        if (state["monitor"], state["mode"]) != (self.monitor, self.mode):
            return False
        self.value, self.step = state["best"], state["best_step"]
        return True
