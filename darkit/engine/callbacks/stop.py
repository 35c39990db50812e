"""Ends the training at a step boundary when somebody asked for it."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch

from darkit.engine.callbacks.base import StepCallback
from darkit.engine.stop import SignalGuard, StopRequest

_INTERVAL = 0.5  # seconds between agreements of several processes
_MOST_STEPS = 1000


class StopOnRequest(StepCallback):
    """Sets ``trainer.should_stop`` after the step at which a request came; all processes stop at the same step.

    A single process looks after every step, which costs nothing. Several have to ask each other, so they do it about
    every half second: after how many steps is computed from the slowest one's time, so that all of them agree on it.

    Args:
        guard: Whose request to look at, when somebody else listens to the signals and ends the run; None listens itself
            for the time of the training.
    """

    def __init__(self, guard: SignalGuard | None = None) -> None:
        self.guard = guard or SignalGuard(StopRequest())
        self.request = self.guard.request
        self._own = guard is None
        self._wait = 1
        self._since = (0, 0.0)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Notes where the training starts, and takes the signals from Lightning, which would break off the step."""
        super().on_train_start(trainer, pl_module)
        if self._own:  # what was asked of the training before is done
            self.guard.uninstall()
            self.guard = SignalGuard(StopRequest())
            self.request = self.guard.request
        self._wait, self._since = 1, (trainer.global_step, time.monotonic())
        self.guard.install()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stops to listen, if it was this callback that began."""
        if self._own:
            self.guard.uninstall()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Stops to listen, if it was this callback that began."""
        if self._own:
            self.guard.uninstall()

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Looks, and asks the others when it is time."""
        asked = bool(self.request.reason)
        if trainer.world_size > 1:
            if step - self._since[0] < self._wait:
                return
            asked = self._agree(trainer, pl_module, asked, step)
        if asked:
            self.request.ask("Another process of this training was asked to stop.")
            trainer.should_stop = True

    def _agree(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, asked: bool, step: int) -> bool:
        steps, elapsed = step - self._since[0], time.monotonic() - self._since[1]
        mine = torch.tensor([float(asked), elapsed / steps], device=pl_module.device)
        someone, slowest = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        self._wait = max(1, min(_MOST_STEPS, int(_INTERVAL / max(slowest, 1e-6))))
        self._since = (step, time.monotonic())
        return bool(someone)
