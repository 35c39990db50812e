"""The log: one row per logged step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from darkit.engine.callbacks.base import EveryStepCallback, check_interval, is_due, log_values
from darkit.engine.log.media import media_of, split
from darkit.engine.log.rows import RowStream
from darkit.runs import files
from darkit.runs.log import CsvLog


class StepLog(EveryStepCallback):
    """Log step, epoch, time, learning rate and the step's output, without waiting for a device or a disk.

    Media in the output, such as `darkit.Image`, are logged with the row.

    Args:
        target: The run directory, whose ``train_log.csv`` is then opened for the time of the training; a stream that
            the caller closes; None in the other processes of a training on several devices.
        every: Steps between rows; evaluated steps and the last one are logged always.
    """

    def __init__(self, target: Path | RowStream | None, every: int = 1) -> None:
        self.every = check_interval("every", every, 1)
        self._folder = target if isinstance(target, Path) else None
        self._stream = target if isinstance(target, RowStream) else None
        self._rate: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._folder is not None and trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stream = RowStream(CsvLog(self._folder / files.LOG))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Record the learning rate of the step, before the schedule changes it."""
        self._rate = optimizer.param_groups[0]["lr"]
        if isinstance(self._rate, Tensor):
            self._rate = self._rate.clone()

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        values = log_values(trainer, outputs)
        if not ("val_loss" in values or is_due(trainer, step, self.every)):
            return
        if trainer.world_size > 1 and "train_loss" in values:
            share = getattr(pl_module, "share", 1.0)  # of the step's samples or targets, in this process
            loss = values["train_loss"] * share
            values["train_loss"] = trainer.strategy.reduce(
                torch.where(loss.isnan() & (share == 0), 0.0, loss), reduce_op="mean"
            )
        if self._stream is not None:
            clock = {"step": step, "epoch": trainer.current_epoch, "time": time.time(), "lr": self._rate}
            row = clock | values | clock  # a step's output does not set the clock
            columns = self._stream.log.columns
            self._stream.put({key: row[key] for key in row if key in columns} if self._stream.log.fixed else row)
            if media := media_of(outputs, values):
                self._stream.put_media(step, split(media)[1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write pending rows."""
        if self._folder is not None and self._stream is not None:
            self._stream.close()
            self._stream = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the last completed step if an earlier callback failed, and write pending rows."""
        super().on_exception(trainer, pl_module, exception)
        self.on_train_end(trainer, pl_module)
