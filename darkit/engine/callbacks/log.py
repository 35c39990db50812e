"""The log: one row per logged step."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from darkit.engine.callbacks.base import EveryStepCallback, agreement_of, check_interval, is_due, log_values, own_values
from darkit.engine.callbacks.evaluate import StepEvaluate
from darkit.engine.log.media import media_of, split
from darkit.engine.log.rows import RowStream
from darkit.engine.log.values import snapshot
from darkit.engine.metrics.exchange import RowBlock
from darkit.runs import files
from darkit.runs.log import CsvLog

_MOST_ROWS = 32  # in a block, where no time is agreed on


class StepLog(EveryStepCallback):
    """Log step, epoch, time, learning rate and the step's output, without waiting for a device or a disk.

    Media in the output, such as `darkit.Image`, are logged with the row.

    In a training on several devices a value of the step is averaged over them. The loss of `darkit.fit` comes averaged;
    rows with other values wait for the next exchange: after half a second, or in a stock trainer after 32 rows, and
    before every checkpoint. Values that callbacks added are those of the first process.

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
        self._block = RowBlock()
        self._module: LightningModule | None = None
        self._is_alone = False
        self._evaluation: StepEvaluate | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._module, self._is_alone = pl_module, False
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._evaluation = next((one for one in callbacks if isinstance(one, StepEvaluate)), None)
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
        is_logged = is_due(trainer, step, self.every) or self._was_evaluated(values, step)
        if trainer.world_size > 1:
            self._of_several(trainer, pl_module, outputs, values, step, is_logged)
        elif is_logged:
            self._put(self._row(trainer, values, step))
        if is_logged and self._stream is not None and (media := media_of(outputs, values)):
            self._stream.put_media(step, split(media)[1])

    def exchange(self) -> None:
        """Average what is left of the values of several processes, and pass the rows on. All must call it."""
        if not self._block or self._module is None:
            return
        agreement = agreement_of(self._module)
        if agreement is None or agreement.take_further():
            self._block.exchange(self._module.device)
        else:
            self._block.give_up()  # no process has a value to average

    def _of_several(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        values: dict[str, Any],
        step: int,
        is_logged: bool,
    ) -> None:
        own = own_values(pl_module, values)
        row = self._row(trainer, values, step, averaged=own)

        def put(averaged: dict[str, Any]) -> None:
            outputs.update({name: averaged[name] for name in own if name in outputs})  # for a checkpoint's metrics
            if is_logged:
                self._put(averaged)

        self._block.add(step, row, own, put)
        agreement = agreement_of(pl_module)
        if self._is_alone:
            return
        if len(self._block) >= _MOST_ROWS if agreement is None else agreement.ends_block:
            self.exchange()

    def _row(
        self, trainer: Trainer, values: dict[str, Any], step: int, averaged: Collection[str] = ()
    ) -> dict[str, Any]:
        clock = {"step": step, "epoch": trainer.current_epoch, "time": time.time(), "lr": self._rate}
        now = {}  # a parameter or a buffer changes before the row is written
        for name, value in values.items():
            if name != "train_loss" and isinstance(value, Tensor) and name not in averaged:
                now[name] = snapshot(name, value)
        return clock | values | now | clock  # a step's output does not set the clock

    def _put(self, row: dict[str, Any]) -> None:
        if self._stream is not None:
            columns = self._stream.log.columns
            self._stream.put({key: row[key] for key in row if key in columns} if self._stream.log.fixed else row)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write pending rows."""
        if not self._is_alone:
            self.exchange()
        if self._folder is not None and self._stream is not None:
            self._stream.close()
            self._stream = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the last completed step if an earlier callback failed, and write pending rows.

        Several processes cannot average then: the rows of the last half second have the first one's own values.
        """
        self._is_alone = True
        super().on_exception(trainer, pl_module, exception)
        if (count := self._block.give_up()) and self._stream is not None:
            exception.add_note(f"The last {count} rows of the log have the values of the first process alone.")
        self.on_train_end(trainer, pl_module)

    def _was_evaluated(self, values: Collection[str], step: int) -> bool:
        """Return whether a step was evaluated, by darkit's callback or by another one that tells its loss."""
        return "val_loss" in values or (self._evaluation is not None and self._evaluation.evaluated == step)
