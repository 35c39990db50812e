"""Base classes of darkit's callbacks, which count steps and not batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from darkit.engine.log.values import number_of
from darkit.engine.metrics.denominators import Weight
from darkit.engine.metrics.exchange import agreed
from darkit.engine.steps.adapter import Adapter
from darkit.engine.steps.agreement import Agreement


class StepCallback(Callback):
    """Call `on_step` once after every optimizer step, and after nothing else.

    ``on_train_batch_end`` also comes for batches that were only accumulated, and once more when a stretch of steps ends
    early (see `darkit.engine.steps.adapter.Adapter`): then ``trainer.global_step`` has not moved.
    """

    evaluated: int | None = None
    """The last step that an evaluation followed, of a callback that evaluates."""
    _last_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        self.evaluated = None if self.evaluated is None else -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = pl_module.steps if isinstance(pl_module, Adapter) else trainer.global_step
        if step != self._last_step:
            self._last_step = step
            self.on_step(trainer, pl_module, outputs, step)

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        """Called after every step.

        ``pl_module`` is the adapter or a user's LightningModule, ``outputs`` the step's output with its ``loss``, to
        which callbacks may add entries for later ones, and ``step`` the step just completed, counted from 1.
        """
        raise NotImplementedError


class EveryStepCallback(StepCallback):
    """Also gets the last completed step when an earlier callback failed in it."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Call `on_step` for a completed step that it has not seen; add an error of it as a note."""
        step, outputs = trainer.global_step, getattr(pl_module, "outputs", None)
        if step == self._last_step or self._last_step < 0 or not outputs or not getattr(pl_module, "settled", False):
            return
        self._last_step = step
        try:
            self.on_step(trainer, pl_module, outputs, step)
        except Exception as late:
            exception.add_note(f"After step {step}, {type(self).__name__} failed too: {late}")


class ComparingCallback(EveryStepCallback):
    """Compares values of a metric, which several processes do together: not after an error in one of them."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.world_size == 1:
            super().on_exception(trainer, pl_module, exception)


def is_last(trainer: Trainer, step: int) -> bool:
    """Return whether a step is the last planned one, by number of steps or of epochs."""
    if step == trainer.max_steps:
        return True
    epochs = trainer.max_epochs
    return epochs is not None and epochs > 0 and trainer.is_last_batch and trainer.current_epoch + 1 >= epochs


def is_due(trainer: Trainer, step: int, every: int) -> bool:
    """Return whether something due every so many steps, and at the last one, is due; 0 means only the last."""
    return (every > 0 and step % every == 0) or is_last(trainer, step)


def log_values(trainer: Trainer, outputs: Any) -> dict[str, Any]:
    """Return the single numbers of a step's output by their names in the log: ``loss`` becomes ``train_loss``.

    When Lightning accumulates gradients for a user's LightningModule, the loss is that of the step's last batch, which
    Lightning divides by the number of batches; it is multiplied again here.

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


def agreement_of(pl_module: LightningModule) -> Agreement | None:
    """Return what the processes of `darkit.fit` agree on at every step; None in one process or in a stock trainer."""
    return pl_module.agreement if isinstance(pl_module, Adapter) else None


def own_values(pl_module: LightningModule, values: Mapping[str, Any]) -> dict[str, tuple[Any, Weight]]:
    """Return the values of a step that are this process's alone, with their weights in the mean of all."""
    if isinstance(pl_module, Adapter):
        return {name: (values[name], weight) for name, weight in pl_module.weights.items() if name in values}
    return {"train_loss": (values["train_loss"], 1.0)} if "train_loss" in values else {}


def is_compared(trainer: Trainer, name: str, step: int, every: int) -> bool:
    """Return whether a metric is read at a step: the same in all processes.

    One process reads a ``val_`` metric wherever it is. Several cannot know where a callback of the user's adds one in
    another process, so they look for it after an evaluation, and without evaluations every so many steps.
    """
    if not name.startswith("val_"):
        return is_due(trainer, step, every)
    if trainer.world_size == 1:
        return True
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    last = [one.evaluated for one in callbacks if isinstance(one, StepCallback) and one.evaluated is not None]
    return step in last if last else is_due(trainer, step, every)


def over_processes(
    trainer: Trainer, pl_module: LightningModule, values: Mapping[str, Any], name: str
) -> Mapping[str, Any]:
    """Return the values of a step with one that is the same, or missing, in all processes.

    So they decide the same. All processes must call it, at steps that they all know (`is_compared`). What the training
    step returns is averaged over the processes that have it. Everything else counts as the first process has it: what a
    callback adds, and the values of a validation, which a callback may have replaced. The loss of `darkit.fit` is the
    same already.
    """
    if trainer.world_size == 1 or (name == "train_loss" and agreement_of(pl_module) is not None):
        return values
    rest = {key: value for key, value in values.items() if key != name}
    found = agreed(name, values.get(name), own_values(pl_module, values).get(name), pl_module.device)
    return rest if found is None else {**rest, name: found}


def check_interval(name: str, value: Any, least: int) -> int:
    """Check a number of steps. Raises `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return value
