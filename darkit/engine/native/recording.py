"""What records a training by Lightning's own loop into an open session: rows, checkpoints, stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import lightning
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from darkit.engine.callbacks.base import is_last, log_values
from darkit.engine.callbacks.guard import LossGuard
from darkit.engine.callbacks.stop import StopOnRequest
from darkit.engine.checkpoints.writer import CheckpointWriter, ShardedWriter
from darkit.engine.config import TrainerConfig
from darkit.engine.data.workers import deferred_worker_deaths
from darkit.engine.lightning import (
    call_at,
    epoch_has_ended,
    finish_batch,
    has_batch_in_flight,
    is_at_batch_end,
    logged_step,
    note_outputs,
    resume_averaging,
    signature_once,
    start_exactly,
    validate,
)
from darkit.engine.lightning_hooks import quick_hooks
from darkit.engine.lightning_loaders import replace_training_loaders, training_loaders
from darkit.engine.lightning_results import log_faster, log_media, logs_its_own_way
from darkit.engine.log.media import Encoded, encode, media_of, split
from darkit.engine.log.progress import announce
from darkit.engine.log.values import number_of
from darkit.engine.native.best import BestStep
from darkit.engine.native.data import announce_repeats, has_state
from darkit.engine.native.first_step import FirstStep
from darkit.engine.native.plain import inner
from darkit.engine.native.settings import planned_steps, why_stopped
from darkit.engine.native.sharded import make_writer
from darkit.engine.native.spikes import measure_spikes
from darkit.engine.native.state import KEY, MakeLoader, Moments, validation_states, versions
from darkit.engine.session import Session
from darkit.engine.steps.counting import record_step
from darkit.errors import ConfigError, NonFiniteLossError

logger = logging.getLogger(__name__)


class Recording:
    """Record one ``trainer.fit`` into a session.

    In the steps it is called from Lightning's loops and not as a callback, for which Lightning takes longer than for a
    small model's step.

    Args:
        session: The open session.
        config: Has ``save_step_interval``, ``log_step_interval``, ``nan_policy``, ``monitor``, ``mode`` and
            ``load_best_at_end``.
        state: The content of the checkpoint to resume from, or empty.
        adopt: Returns a loader with a position for a training loader that has none, or None to leave that as it is.

    Attributes:
        pending: What was logged for the step that is being done.
        validates_last: Whether the last step is validated even if Lightning does not.
    """

    def __init__(
        self,
        session: Session,
        config: TrainerConfig,
        *,
        state: Mapping[str, Any] | None = None,
        adopt: MakeLoader = lambda loader: None,
    ) -> None:
        self.session = session
        self.config = config
        self.pending: dict[str, Any] = {}
        self.validates_last = False
        self._media: dict[str, Encoded] = {}
        self._is_told = False  # whether anything was logged for the step, beside what the step returned
        self._state = state or {}
        self._adopt = adopt
        self._undo: list[Callable[[], None]] = []
        self._step = self._saved = session.step
        self._stepping_from = -1
        self._outputs: Any = None
        self._metrics: dict[str, float] = {}
        self._told_of_other_step = False
        self._epoch = 0
        self._before_epoch_end = 0
        self._reloads = self._owes = False
        self._direct_steps = self._versions = 0
        self._stop = StopOnRequest(session.guard)
        self._guard = LossGuard(config.nan_policy, session.stream, self.wait)
        self._best = BestStep(config)
        self._writer: CheckpointWriter | None = None
        self._first: FirstStep | None = None

    def attach(self, trainer: lightning.Trainer, module: lightning.LightningModule, *, unchanged: bool = True) -> None:
        """Attach to the trainer's loops, in ``on_fit_start``.

        Args:
            trainer: The trainer.
            module: The module.
            unchanged: Whether trainer and module are left to work as they are; otherwise ``self.log`` is quicker.
        """
        facts = {"run": self.session.folder.name, "id": self.session.run_id}
        self.moments = Moments(inner(module), facts)
        loop = trainer.fit_loop
        may_log_faster = trainer.world_size == 1 and not logs_its_own_way(module)
        self._undo = [
            self.moments.release,
            register_optimizer_step_pre_hook(self._note_step).remove,
            call_at(trainer.precision_plugin, "_after_closure", lambda: self._before_step(trainer), before=True),
            note_outputs(trainer, self._note_outputs),
            call_at(loop.epoch_loop, "on_advance_end", lambda: self._after_batch(trainer)),
            call_at(loop, "on_advance_end", lambda: self._after_epoch(trainer)),
            replace_training_loaders(trainer, lambda loader: self._watched(trainer, loader)),
            log_media(module, self._add_medium),
            self._best.watch(trainer),
            call_at(trainer.strategy, "on_train_end", lambda: self.on_train_end(trainer)),
            self._count_first_step(trainer, module),
            measure_spikes(trainer, inner(module), self.config, self._add),
        ]
        if KEY in self._state:
            self._undo.append(call_at(loop, "on_advance_start", lambda: self._restore(trainer), before=True))
        if not unchanged:
            self._undo += [signature_once(trainer), quick_hooks(trainer, module)]
            if may_log_faster:
                self._undo.append(log_faster(trainer, module))
        self.moments.train = [loader for loader in training_loaders(trainer) if has_state(loader)]

    def _count_first_step(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> Callable[[], None]:
        session = self.session
        tell = partial(record_step, session.folder, session.check) if session.writes else lambda *found: None
        self._first = FirstStep(trainer, inner(module), self.config.peak_flops, tell)
        return self._first.detach

    def detach(self) -> None:
        """Leave the trainer as it was."""
        for undo in reversed(self._undo):
            undo()
        self._undo = []
        if isinstance(self._writer, ShardedWriter):
            writer, self._writer = self._writer, None
            writer.close()

    def on_train_start(self, trainer: lightning.Trainer) -> None:
        """Check what can be checked before the first step.

        Raises:
            CheckpointUnreadableError: The state cannot be saved.
        """
        self._step = self._saved = trainer.global_step
        self._epoch = trainer.current_epoch
        self.session.expect(planned_steps(trainer))
        if KEY in self._state and trainer.global_step != self._state["current_step"]:
            raise ConfigError(
                f"Lightning resumed at step {trainer.global_step}, but the checkpoint is of step "
                f"{self._state['current_step']}: the module or its optimizers are not those of the run."
            )
        self.moments.val = validation_states(trainer.val_dataloaders)
        self.moments.record(trainer, epoch_ended=False)
        self._writer = make_writer(trainer, self.session, self.moments.collect(trainer))
        self._stop.begin(trainer.global_step)
        announce_repeats(trainer)

    def log(self, trainer: lightning.Trainer, values: Mapping[str, Any], step: int | None) -> None:
        """Add values to the row of the step that is being done, and media to the run."""
        numbers, media = split(values)
        other = step is not None and step not in (logged_step(trainer), trainer.global_step)
        if numbers and other and not self._told_of_other_step:
            self._told_of_other_step = True
            logger.warning(
                "Logged for step %s: %s. The run has it at step %d, because a run counts only optimizer steps; of "
                "several values of a name, it keeps the last one at each step.",
                step,
                ", ".join(map(repr, numbers)),
                trainer.global_step,
            )
        self.pending.update(numbers)
        self._is_told |= bool(numbers)
        if media and self.session.stream is not None:
            self.session.stream.put_media(trainer.global_step, media)

    def _add(self, values: Mapping[str, Any]) -> None:
        """Add columns and media to the row of the step that is being done."""
        numbers, media = split(values)
        self.pending = {**numbers, **self.pending}
        self._is_told |= bool(numbers)
        self._media |= media

    def _add_medium(self, name: str, value: Any) -> None:
        medium = encode(name, value)
        if medium is not None:
            self._media[name] = medium

    def on_train_end(self, trainer: lightning.Trainer) -> None:
        """Save the last step unless it is saved, and wait until everything is on the disk."""
        if self.pending:
            self._write_row(trainer, self._step)
        changed = self._step == self._saved and self._versions != versions(trainer.lightning_module)
        if changed and trainer.is_global_zero:
            announce(
                f"The weights were changed after the last step: the checkpoint of step {self._step} has the new ones."
            )
        if changed or self._step != self._saved:
            self._save(trainer)
        if trainer.should_stop and not self.session.guard.request.reason:
            self.session.end_reason = why_stopped(trainer, self._step)
        self.wait()

    def on_exception(self, trainer: lightning.Trainer, error: BaseException) -> None:
        """Log and save the last completed step; add an error of that as a note."""
        ends: list[Callable[[], None]] = [lambda: self._save_after(trainer, error), self.wait]
        with suppress(RuntimeError), deferred_worker_deaths():
            for end in ends:
                try:
                    end()
                except BaseException as late:
                    if str(late) != str(error):
                        error.add_note(f"The last step could not be saved: {type(late).__name__}: {late}")

    def wait(self) -> None:
        """Wait until everything is on the disk."""
        if self._writer is not None:
            self._writer.wait()

    def _watched(self, trainer: lightning.Trainer, loader: Any) -> Any:
        """Return the loader to train on, with its position restored."""
        if self._reloads:
            self.moments.train.clear()
            self._reloads = False
        return self.moments.watch(trainer, loader, self._adopt, self._state)

    def _restore(self, trainer: lightning.Trainer) -> None:
        """Restore what Lightning does not, once, before the first epoch."""
        state, self._state = self._state, {}
        if state:
            progress = state[KEY]["progress"]
            self._owes = progress is not None and progress["owes"]
            self._undo.append(start_exactly(trainer, progress))
            if progress is not None:
                resume_averaging(trainer)
            self.moments.restore(trainer, state)

    def _after_batch(self, trainer: lightning.Trainer) -> None:
        step = trainer.global_step
        self.session.signs += 1
        if self._first is not None and self._first.after_batch(step - self._step):
            self._first = None
        steps, self._direct_steps = self._direct_steps, 0
        owes, self._owes = self._owes, False
        if step == self._step:
            if steps:
                raise ConfigError(
                    f"{type(trainer.lightning_module).__name__} steps an optimizer that Lightning does not count, so "
                    "the run would have no steps: call step() of what self.optimizers() returns."
                )
            if self.pending and owes and not epoch_has_ended(trainer):
                self._write_row(trainer, step)
            return  # the batch was accumulated
        before, self._step, self._epoch = self._step, step, trainer.current_epoch
        self._check_loss(trainer, step)
        self.session.step = step
        self._stop.on_step(trainer, trainer.lightning_module, {}, step)
        # in all processes alike: only the first one gets what is logged
        validated = getattr(trainer.lightning_module, "validated", step)
        if self.validates_last and is_last(trainer, step) and validated != step:
            validate(trainer)
        if not epoch_has_ended(trainer):
            self._finish(trainer, before, epoch_ended=False)
        else:
            self.moments.record(trainer, epoch_ended=False)
            self._before_epoch_end = before

    def _note_step(self, optimizer: Optimizer, *arguments: Any) -> None:
        """Count a step of any optimizer, and record the rate of the first one that steps for a step."""
        if not self._direct_steps:
            rate = next((group.get("lr") for group in optimizer.param_groups), None)
            self.moments.rate = rate.clone() if isinstance(rate, Tensor) else rate
        self._direct_steps += 1

    def _before_step(self, trainer: lightning.Trainer) -> None:
        """Record that the weights change now."""
        self._stepping_from = trainer.global_step

    def _note_outputs(self, outputs: Any) -> None:
        self._outputs = outputs

    def _after_epoch(self, trainer: lightning.Trainer) -> None:
        self._reloads = True
        moment = self.moments.last
        if moment is None or moment.step != self._step:
            return
        if epoch_has_ended(trainer):
            self._finish(trainer, self._before_epoch_end, epoch_ended=True)
        elif self.pending:
            self._write_row(trainer, self._step)

    def _finish(self, trainer: lightning.Trainer, before: int, *, epoch_ended: bool) -> None:
        """Log a step, and save it when due."""
        step = self._step
        self.moments.record(trainer, epoch_ended=epoch_ended)
        every, interval = self.config.save_step_interval, self.config.log_step_interval
        due = step // interval > before // interval or is_last(trainer, step)
        logs = due or self._is_told or bool(self._media)
        if logs:
            self._write_row(trainer, step)
        else:
            self.pending = {}
        is_best = self._best.is_new(trainer, self._metrics if logs else {}, due=due or epoch_ended)
        ends = trainer.should_stop or (not epoch_ended and is_last(trainer, step))
        if (every and step // every > before // every) or is_best or ends:
            self._save(trainer)

    def _check_loss(self, trainer: lightning.Trainer, step: int) -> None:
        values = log_values(trainer, self._outputs)
        if media := media_of(self._outputs, values):
            self._media |= split(media)[1]
        self.pending, self._outputs = {**values, **self.pending}, None
        try:
            self._guard.on_step(trainer, trainer.lightning_module, {"loss": values.get("train_loss")}, step)
        except NonFiniteLossError:
            self._write_row(trainer, step)
            raise

    def _write_row(self, trainer: lightning.Trainer, step: int) -> None:
        values, self.pending, self._is_told = self.pending, {}, False
        numbers = {key: _settled(number_of(key, value)) for key, value in values.items()}
        if self.session.stream is not None:
            clock = {"step": step, "epoch": self._epoch, "time": time.time(), "lr": self.moments.rate}
            values = {key: value if numbers[key] is None else numbers[key] for key, value in values.items()}
            values = {key: value for key, value in values.items() if value is not None}
            row = clock | values | {key: clock[key] for key in ("step", "epoch", "time")}  # a module may log its lr
            columns = self.session.stream.log.columns
            fixed = self.session.stream.log.fixed
            self.session.stream.put({key: row[key] for key in row if key in columns} if fixed else row)
            if self._media:
                self.session.stream.put_media(step, self._media)
        self._media = {}
        self._metrics = {key: float(value) for key, value in numbers.items() if value is not None}

    def _save(self, trainer: lightning.Trainer, *, interrupted: bool = False) -> None:
        step = self._step
        self._guard.check_step(trainer.lightning_module, step)
        if self.session.stream is not None:
            self.session.stream.flush()
        content = self.moments.collect(trainer, interrupted=interrupted)
        if self._writer is not None:
            check = self._guard.check_copy(trainer.lightning_module, step, content)
            self._writer.save(step, content, self._metrics, check)
        self._saved, self._versions = step, versions(trainer.lightning_module)

    def _save_after(self, trainer: lightning.Trainer, error: BaseException) -> None:
        """Save the last completed step after an error, unless the weights belong to no finite step."""
        moment = self.moments.last if hasattr(self, "moments") else None
        if moment is None or isinstance(error, NonFiniteLossError):
            return
        step, in_flight = trainer.global_step, has_batch_in_flight(trainer)
        fresh = not in_flight and step != moment.step
        if fresh:  # an error in validation, or of a callback
            if is_at_batch_end(trainer):
                error.add_note(
                    f"on_train_batch_end of step {step} did not finish, and is not called again by a resume."
                )
            finish_batch(trainer)
            self._step, self._epoch = step, trainer.current_epoch
            self.session.step = step
            self.pending = {**log_values(trainer, self._outputs), **self.pending}
            self.moments.record(trainer, epoch_ended=False, owes=True)
            moment = self.moments.last
        elif in_flight and (step != moment.step or self._stepping_from == step):
            error.add_note(f"The step after {moment.step} was interrupted while it changed the weights: not saved.")
            return
        if moment is None or moment.step <= self._saved or moment.step == 0:
            return
        if in_flight and self.moments.has_foreign_loaders:
            error.add_note(f"Step {moment.step} is not saved: its place in the data is not known any more.")
            return
        if trainer.world_size > 1:
            error.add_note(f"Step {moment.step} is not saved: one of several processes cannot save alone.")
            return
        self._step = moment.step
        if self.pending and fresh:
            self._write_row(trainer, moment.step)
        self._save(trainer, interrupted=not fresh)


def _settled(number: Any) -> Any:
    """Return a number as it is now: a module may return a parameter or a buffer, which the next step changes."""
    return number.item() if isinstance(number, Tensor) else number
