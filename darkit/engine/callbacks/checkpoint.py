"""Checkpoints every so many steps, and at the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from torch.optim import Optimizer

from darkit.engine.callbacks.base import StepCallback, check_interval, is_due, log_values
from darkit.engine.checkpoints.boundary import Boundary
from darkit.engine.checkpoints.state import check_state, collect_state, neuron_states, schedules
from darkit.engine.checkpoints.weights import bare
from darkit.engine.checkpoints.writer import CheckCopy, CheckpointWriter, ShardedWriter
from darkit.engine.data.workers import deferred_worker_deaths
from darkit.engine.lightning import call_at
from darkit.engine.steps.adapter import bare_module
from darkit.engine.steps.sharding import is_sharded
from darkit.engine.stop import Rewind
from darkit.errors import NonFiniteLossError
from darkit.runs.retention import Retention


class StepCheckpoint(StepCallback):
    """Save ``iter-<step>-ckpt.pth`` and its manifest into a run directory, from a background thread.

    Of a model that is split over processes it is the folder ``iter-<step>-ckpt``, into which each writes its part.

    The last completed step is always saved: at the end, and after any exception unless it interrupted the optimizer,
    the step's loss is not finite, the next batch has changed weights outside of the optimizer, or several processes
    train, which would have to agree. When the training ends, everything is on the disk. A step saved after an exception
    can be resumed exactly: generators, buffers, metrics and data position are those of the end of the step.

    Args:
        folder: The run directory.
        every: Steps between checkpoints; 0 saves only the last step.
        run_id: The run's id, for the manifests.
        retention: Which checkpoints to keep; by default all.
        writer: The writer to use, which the caller closes; None creates one.
        before: Called with the step before every save, to flush the log and check the step; an error prevents the save.
        check: Called with the step and the content of its checkpoint; returns what checks the copy of that content, in
            the thread that writes it. An error prevents the save.

    Attributes:
        wanted: A further step to save; an earlier callback sets it.

    Raises:
        StorageError: From the step after a save that could not be written, or at the end.
        NonFiniteLossError: Likewise, after a save of weights that are not finite.
    """

    def __init__(
        self,
        folder: Path,
        every: int = 0,
        *,
        run_id: str = "",
        retention: Retention | None = None,
        writer: CheckpointWriter | None = None,
        before: Callable[[int], None] | None = None,
        check: Callable[[int, Mapping[str, Any]], CheckCopy] | None = None,
    ) -> None:
        self.folder = folder
        self.every = check_interval("every", every, 0)
        self.run_id = run_id
        self.retention = retention
        self.before = before
        self.check = check
        self.wanted = -1
        self._saved = self._tried = -1
        self._stepping_from = self._recorded = -1
        self._values: Mapping[str, Any] = {}
        self._boundary = Boundary()
        self._stepped: tuple[list[Optimizer], list[Any]] = ([], [])
        self._detach: Callable[[], None] = lambda: None
        self._checked = True
        self._given = writer
        self._writer: CheckpointWriter | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the step that the training starts from as saved.

        Raises:
            CheckpointUnreadableError: The state of the model, an optimizer or the schedule cannot be saved.
        """
        super().on_train_start(trainer, pl_module)
        self._saved = self._tried = trainer.global_step
        self._stepping_from = self._recorded = -1
        self._stepped = (trainer.optimizers, schedules(trainer, pl_module))
        self._detach()
        self._detach = call_at(trainer.fit_loop, "on_advance_end", lambda: self._record_again(trainer, pl_module))
        if trainer.is_global_zero or is_sharded(trainer):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = self._given or CheckpointWriter(self.folder, run_id=self.run_id, retention=self.retention)
            if is_sharded(trainer):
                self._writer = ShardedWriter(self._writer)
            check_state(trainer, pl_module)
            self._checked = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Record that the weights are about to change: until the step is completed they belong to no step."""
        self._stepping_from = trainer.global_step

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        self._values = outputs
        if self._writer is not None:
            self._writer.check()
            if not self._checked:  # many optimizers create their state in the first step
                check_state(trainer, pl_module)
                self._checked = True
        if is_due(trainer, step, self.every) or trainer.should_stop or self.wanted == step:
            self.save(trainer, pl_module)
        if trainer.world_size == 1:  # several processes save nothing after an exception
            self._record(trainer, pl_module)
            self._recorded = step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what other callbacks have changed at the end of the epoch, which a resume does not repeat."""
        self._record_again(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved >= 0 and trainer.global_step != self._saved:  # a step was made, and it is not saved
            self.save(trainer, pl_module)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last completed step, and wait for the writer; add an error of it as a note."""
        save = partial(self._save_before, trainer, pl_module, exception)
        with suppress(RuntimeError), deferred_worker_deaths():  # data workers that die now have no further meaning
            for end in (save, self._close):
                try:
                    end()
                except BaseException as late:
                    if str(late) != str(exception):
                        exception.add_note(f"The last step could not be saved: {type(late).__name__}: {late}")

    def save(self, trainer: Trainer, pl_module: LightningModule, boundary: Boundary | None = None) -> None:
        """Save the step just completed. Of several processes with the whole model only the first one writes.

        ``boundary`` is the state at its end, if another step has begun since.
        """
        step = self._tried = trainer.global_step
        if self.before is not None:
            self.before(step)
        state = collect_state(trainer, pl_module, boundary)
        if self._writer is not None:
            metrics = {key: float(value) for key, value in log_values(trainer, self._values).items()}
            checks = {} if self.check is None else {"check": self.check(step, state)}
            self._tried = -1  # an error from here on is that of the previous save
            self._writer.save(step, state, metrics, **checks)
        self._saved = self._tried = step

    def _record(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._boundary.record(bare(bare_module(pl_module)), neuron_states(pl_module), *self._stepped)

    def _record_again(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the end of an epoch too, when its schedule has been stepped as well."""
        if self._recorded == trainer.global_step:
            self._record(trainer, pl_module)

    def _save_before(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the step completed before an exception, unless the weights belong to no finite step."""
        step = trainer.global_step
        broken = step == self._stepping_from or not getattr(pl_module, "settled", True)
        if self._saved < 0 or step == self._tried or broken or isinstance(exception, NonFiniteLossError | Rewind):
            return
        if trainer.world_size > 1:
            exception.add_note(
                f"Step {step} is not saved: one of several processes cannot save alone. The last saved step is kept."
            )
            return
        reached = step == self._last_step
        if not reached:  # another callback failed before this one, in the same step
            self._values = getattr(pl_module, "outputs", {})
        self.save(trainer, pl_module, self._boundary if self._recorded == step else None)

    def _close(self) -> None:
        self._detach()
        self._boundary = Boundary()  # it holds the memory of the weights
        writer, self._writer, self._saved = self._writer, None, -1
        if writer is not None:
            writer.wait() if writer is self._given else writer.close()
