"""Checkpoints every so many steps, and at the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning

from darkit.engine.adapter import Adapter
from darkit.engine.callbacks.base import StepCallback, bare_module, check_interval, is_due, log_values
from darkit.engine.checkpoint import class_path, write_checkpoint
from darkit.engine.device import generator_states


class StepCheckpoint(StepCallback):
    """Saves ``iter-<step>-ckpt.pth`` and its manifest into a run directory.

    Args:
        folder: The run directory.
        every: Steps between checkpoints; 0 saves only the last step. The last step is saved always.
        run_id: The run's id, for the manifests.
        before: Called before every save, so that what the checkpoint claims is on the disk and is true.
    """

    def __init__(
        self, folder: Path, every: int = 0, *, run_id: str = "", before: Callable[[], None] | None = None
    ) -> None:
        self.folder = folder
        self.every = check_interval("every", every, 0)
        self.run_id = run_id
        self.before = before

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Saves when it is due."""
        if is_due(trainer, step, self.every):
            self.save(trainer, pl_module, outputs, step)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Saves the last step of a training that ended before its planned one."""
        step = trainer.global_step
        if step == self._last_step and 0 < step < trainer.max_steps and not is_due(trainer, step, self.every):
            self.save(trainer, pl_module, {}, step)

    def save(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Mapping[str, Any], step: int
    ) -> None:
        """Saves now; only the first of several processes writes."""
        if self.before is not None:
            self.before()
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        metrics = {key: float(value) for key, value in log_values(outputs).items()}
        content = checkpoint_content(trainer, pl_module)
        write_checkpoint(self.folder, step, content, metrics=metrics, run_id=self.run_id)


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
