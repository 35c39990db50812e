"""Checkpoints every so many steps, and at the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
from torch.optim import Optimizer

from darkit.engine.adapter import Adapter
from darkit.engine.callbacks.base import StepCallback, bare_module, check_interval, is_due, log_values
from darkit.engine.checkpoint import class_path, write_checkpoint
from darkit.engine.device import generator_states


class StepCheckpoint(StepCallback):
    """Saves ``iter-<step>-ckpt.pth`` and its manifest into a run directory.

    The last completed step is saved always: at the end, however it comes about, and after a `KeyboardInterrupt` unless
    that broke off the optimizer itself (see `StopOnInterrupt`).

    Args:
        folder: The run directory.
        every: Steps between checkpoints; 0 saves only the last step.
        run_id: The run's id, for the manifests.
        before: Called with the step before every save, so that what the checkpoint claims is on the disk and is true;
            an error that it raises prevents the save.
    """

    def __init__(
        self, folder: Path, every: int = 0, *, run_id: str = "", before: Callable[[int], None] | None = None
    ) -> None:
        self.folder = folder
        self.every = check_interval("every", every, 0)
        self.run_id = run_id
        self.before = before
        self._saved = -1
        self._stepping = False
        self._values: Mapping[str, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes the step that the training starts from for saved."""
        super().on_train_start(trainer, pl_module)
        self._saved = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Notes that the weights are about to change: until the step is completed they are no step's."""
        self._stepping = True

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Saves when it is due."""
        self._stepping = False
        self._values = log_values(trainer, outputs)
        if is_due(trainer, step, self.every):
            self.save(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Saves the last step if that was not done."""
        self._save_last(trainer, pl_module)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Saves the last completed step when a person stopped the training."""
        if isinstance(exception, KeyboardInterrupt) and not self._stepping:
            self._save_last(trainer, pl_module)

    def save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Saves the step just completed; only the first of several processes writes."""
        step = trainer.global_step
        if self.before is not None:
            self.before(step)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            metrics = {key: float(value) for key, value in self._values.items()}
            content = checkpoint_content(trainer, pl_module)
            write_checkpoint(self.folder, step, content, metrics=metrics, run_id=self.run_id)
        self._saved = step

    def _save_last(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step == self._last_step != self._saved:
            self.save(trainer, pl_module)


def checkpoint_content(trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
    """Collects everything that going on needs.

    Returns:
        ``state_dict`` of the bare module, ``model_class``, ``current_step``, ``optimizer_state_dict``,
        ``scheduler_state_dict``, ``rng`` and ``position`` (epoch and batches of it that were taken).
    """
    module = bare_module(pl_module)
    optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]
    if isinstance(pl_module, Adapter):
        schedule = pl_module.schedule
        batches = pl_module.epoch_batches
    else:
        schedule = trainer.lr_scheduler_configs[0].scheduler if trainer.lr_scheduler_configs else None
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return {
        "state_dict": module.state_dict(),
        "model_class": class_path(type(module)),
        "current_step": trainer.global_step,
        "optimizer_state_dict": optimizers[0] if len(optimizers) == 1 else optimizers,
        "scheduler_state_dict": schedule.state_dict() if schedule is not None else None,
        "rng": generator_states(),
        "position": {"epoch": trainer.current_epoch, "batches": batches},
    }
