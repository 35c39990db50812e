"""Stops the training at a step boundary on request."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import LightningModule, Trainer

from darkit.engine.callbacks.base import StepCallback, agreement_of
from darkit.engine.stop import SignalGuard, StopRequest

_INTERVAL = 0.5  # seconds between agreements of several processes
_MOST_STEPS = 1000


class StopOnRequest(StepCallback):
    """Set ``trainer.should_stop`` after the step at which a request came; all processes stop at the same step.

    A single process checks after every step, which costs nothing. So do the processes of `darkit.fit`, whose requests
    come with the gradients; on an accelerator they read them every half second. In a stock trainer several processes
    communicate about every half second; the number of steps between is computed from the slowest process's time, so
    that all agree on it.

    Attributes:
        agreed_step: The last step after which the processes communicated.

    Args:
        guard: The guard with the request, when the caller handles the signals and ends the run; None handles signals
            during the training.
    """

    def __init__(self, guard: SignalGuard | None = None) -> None:
        self.guard = guard or SignalGuard(StopRequest())
        self.request = self.guard.request
        self._own = guard is None
        self._wait = 1
        self._since = (0, 0.0)
        self.agreed_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record where the training starts, and replace Lightning's signal handlers, which would interrupt the step."""
        super().on_train_start(trainer, pl_module)
        if self._own:  # an earlier training's request is done
            self.guard.uninstall()
            self.guard = SignalGuard(StopRequest())
            self.request = self.guard.request
        self.begin(trainer.global_step)
        if (agreement := agreement_of(pl_module)) is not None:
            agreement.asks = lambda: bool(self.request.reason)
        self.guard.install()

    def begin(self, step: int) -> None:
        """Note the step that a training starts from, for the agreement of several processes."""
        self._wait, self._since = 1, (step, time.monotonic())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers that this callback replaced."""
        if self._own:
            self.guard.uninstall()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        """Check for a request, together with the other processes when due."""
        asked = bool(self.request.reason)
        if (agreement := agreement_of(pl_module)) is not None:
            asked = agreement.knows and agreement.asked
        elif trainer.world_size > 1:
            if step - self._since[0] < self._wait:
                return
            asked = self._agree(trainer, pl_module, asked, step)
        if asked:
            self.request.ask("Stopped with another process of this training.")
            trainer.should_stop = True

    def _agree(self, trainer: Trainer, pl_module: LightningModule, asked: bool, step: int) -> bool:
        steps, elapsed = step - self._since[0], time.monotonic() - self._since[1]
        mine = torch.tensor([float(asked), elapsed / steps], device=pl_module.device)
        any_asked, slowest = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        self._wait = max(1, min(_MOST_STEPS, int(_INTERVAL / max(slowest, 1e-6))))
        self._since = (step, time.monotonic())
        self.agreed_step = step
        return bool(any_asked)
