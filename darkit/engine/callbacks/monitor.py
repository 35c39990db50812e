"""The base class of callbacks that watch for the best value of a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from darkit.engine.callbacks.base import ComparingCallback, check_interval, is_compared, log_values, over_processes
from darkit.engine.metrics.gathering import require_metric
from darkit.errors import ConfigError
from darkit.runs.best import is_better


class BestCallback(ComparingCallback):
    """Keep the best value of a metric and call `on_value` with every new one; a non-finite value is never the best.

    A validation metric counts at every evaluation; a training metric every so many steps, because reading it waits for
    the accelerator.

    Args:
        monitor: The metric, by its name in the log.
        mode: ``min`` or ``max``: whether a smaller or a larger value is better.
        every: Steps between values of a training metric; 0 reads the last step only. With several processes and no
            evaluation also between those of a ``val_`` metric.

    Attributes:
        best: The best value, or None.
        best_step: Its step.

    Raises:
        ConfigError: The mode is unknown, or, after a step, an evaluation did not return the metric.
    """

    def __init__(self, monitor: str, mode: str, every: int) -> None:
        self.every = check_interval("every", every, 0)
        if mode not in ("min", "max"):
            raise ConfigError(f"mode must be one of min, max, not {mode!r}.")
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self.best_step = 0

    def on_value(self, trainer: Trainer, step: int, *, is_best: bool) -> None:
        """Called with every value of the metric."""
        raise NotImplementedError

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        value = self._read(trainer, pl_module, outputs, step)
        if value is None:
            return
        is_best = is_better(value, self.best, self.mode)
        if is_best:
            self.best, self.best_step = value, step
        self.on_value(trainer, step, is_best=is_best)

    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.has_metric_of(state):
            self.best, self.best_step = state["best"], state["best_step"]

    def has_metric_of(self, state: Mapping[str, Any]) -> bool:
        """Return whether a state is of the same metric and mode; that of another one is not restored."""
        return (state["monitor"], state["mode"]) == (self.monitor, self.mode)

    def _read(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Any], step: int
    ) -> float | None:
        validation = self.monitor.startswith("val_")
        if not is_compared(trainer, self.monitor, step, self.every):
            return None
        values = over_processes(trainer, pl_module, log_values(trainer, outputs), self.monitor)
        if self.monitor not in values:
            if validation or self.best_step == 0:
                require_metric(self.monitor, values, step, now=not validation)
            return None
        value = values[self.monitor]
        return value.item() if isinstance(value, Tensor) else float(value)
