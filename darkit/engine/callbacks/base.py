"""What the callbacks of this room have in common: they count steps, not batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
from torch import Tensor

from darkit.engine.log.values import number_of


class StepCallback(lightning.Callback):
    """Calls `on_step` once after every optimizer step, and after nothing else.

    ``on_train_batch_end`` also comes for batches that were only accumulated, and once more when a stretch of steps ends
    early (see `darkit.engine.steps.adapter.Adapter`): then ``trainer.global_step`` has not moved.
    """

    _last_step = -1

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Notes where the training starts."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Calls `on_step` when a step was completed."""
        step = trainer.global_step
        if step != self._last_step:
            self._last_step = step
            self.on_step(trainer, pl_module, outputs, step)

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Does what the callback is for.

        Args:
            trainer: The trainer.
            pl_module: The adapter, or someone else's LightningModule.
            outputs: What the step returned, ``loss`` above all; callbacks may add to it for those after them.
            step: The step just completed, counted from 1.
        """
        raise NotImplementedError


class EveryStepCallback(StepCallback):
    """Also gets the last completed step when a callback before this one failed in it."""

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Calls `on_step` for a completed step that it has not had; adds its own error as a note."""
        step, outputs = trainer.global_step, getattr(pl_module, "outputs", None)
        if step == self._last_step or self._last_step < 0 or not outputs or not getattr(pl_module, "settled", False):
            return
        self._last_step = step
        try:
            self.on_step(trainer, pl_module, outputs, step)
        except Exception as late:
            exception.add_note(f"After step {step}, {type(self).__name__} failed too: {late}")


def is_last(trainer: lightning.Trainer, step: int) -> bool:
    """Says whether a step is the last one that is planned, by a number of steps or of epochs."""
    if step == trainer.max_steps:
        return True
    epochs = trainer.max_epochs
    return epochs is not None and epochs > 0 and trainer.is_last_batch and trainer.current_epoch + 1 >= epochs


def is_due(trainer: lightning.Trainer, step: int, every: int) -> bool:
    """Says whether something that comes every so many steps, and at the last one, comes now; 0 means only the last."""
    return (every > 0 and step % every == 0) or is_last(trainer, step)


def log_values(trainer: lightning.Trainer, outputs: Any) -> dict[str, Any]:
    """Names what a step returned as the log does: ``loss`` is ``train_loss``, whatever else has that name.

    Only single numbers are taken.

    In someone else's LightningModule that Lightning accumulates gradients for, the loss is that of the last batch of
    the step; Lightning hands it over divided by the number of batches, and it is multiplied again here.

    Raises:
        LogError: A number is complex or too large.
    """
    if isinstance(outputs, Tensor):
        outputs = {"loss": outputs}
    if not isinstance(outputs, Mapping):
        return {}
    batches = trainer.accumulate_grad_batches
    if batches > 1 and isinstance(outputs.get("loss"), Tensor):
        outputs = {**outputs, "loss": outputs["loss"] * batches}
    values = {}
    for key, value in outputs.items():
        name = "train_loss" if key == "loss" else str(key)
        if (key == "loss" or name != "train_loss" or "loss" not in outputs) and (
            number := number_of(name, value)
        ) is not None:
            values[name] = number
    return values


def check_interval(name: str, value: Any, least: int) -> int:
    """Checks a number of steps. Raises `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return value
