"""Ctrl-C: the step that is being made is completed first."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning

from darkit.engine.callbacks.base import StepCallback


class StopOnInterrupt(StepCallback):
    """Lets a first Ctrl-C raise `KeyboardInterrupt` only between two steps, and a second one at once.

    So weights, optimizer and log are those of the same step when `StepCheckpoint` saves them. It does so in the main
    thread, and where Ctrl-C means what Python makes it mean; a handler of somebody else's is left alone.
    """

    _pressed = False
    _installed = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begins to listen."""
        super().on_train_start(trainer, pl_module)
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._pressed = False
            self._installed = True
            signal.signal(signal.SIGINT, self._note)

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Raises `KeyboardInterrupt` when Ctrl-C was pressed."""
        if self._pressed:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Ends to listen."""
        self._uninstall()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Ends to listen."""
        self._uninstall()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._pressed:
            signal.default_int_handler(number, frame)
        self._pressed = True

    def _uninstall(self) -> None:
        if self._installed:
            self._installed = False
            if signal.getsignal(signal.SIGINT) == self._note:  # Lightning ignores Ctrl-C while it winds up after one
                signal.signal(signal.SIGINT, signal.default_int_handler)
