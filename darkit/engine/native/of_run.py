"""What attaches a run to the trainer of `fit`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import lightning

from darkit.engine.lightning import call_at, on_error, restore_from, restore_optimizers_by
from darkit.engine.native.given import compare_given
from darkit.engine.native.plain import PlainModule
from darkit.engine.native.recording import Recording
from darkit.engine.steps.own_settings import OwnSettings


class OfRun(lightning.Callback):
    """Attach a recording to a trainer; from the first step on it is no callback any more.

    Args:
        recording: The recording.
        state: The content of the checkpoint to resume from, or empty.
        started: Called when the training starts.
        own: Compares what optimizers and schedules are given with what the checkpoint's training was given.
        changed: Settings of the config for a plain module's optimizer that differ from those of the checkpoint.
    """

    def __init__(
        self,
        recording: Recording,
        state: Mapping[str, Any],
        started: Callable[[], None],
        own: OwnSettings,
        changed: Collection[str] = (),
    ) -> None:
        self.recording = recording
        self._state = state
        self._started = started
        self._own = own
        self._changed = changed
        self._undo: list[Callable[[], Any]] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Have the trainer restore the checkpoint, and the recording get every error."""
        compare = partial(self._compare, trainer, pl_module)
        self._undo.append(call_at(trainer.strategy, "setup_optimizers", compare))
        if self._state:
            self._undo.append(restore_from(trainer, self._state, "the run's checkpoint"))
        on_error(trainer, lambda error: self.recording.on_exception(trainer, error))

    def _compare(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Compare the new optimizers with the checkpoint's; where something else holds, Lightning's restoring is left.

        Raises:
            ConfigError: A fork has other settings, which restoring would undo.
        """
        held = compare_given(trainer, self._own, self._state)
        changed = {*self._changed, *held.difference(self._own.changed)}
        if self._state and changed and isinstance(module, PlainModule):
            restore = partial(module.restore_optimizer, self._state, changed)
            self._undo.append(restore_optimizers_by(trainer, restore))

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Attach to the loops."""
        self.recording.attach(trainer, pl_module, unchanged=False)
        self.recording.moments.given = self._own.given

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the run's files, and leave the list of callbacks."""
        for undo in self._undo:
            undo()
        self.recording.on_train_start(trainer)
        self._started()
        self._own.tell()
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        trainer.callbacks = others  # type: ignore[attr-defined]
