"""The run of a `Trainer`: created by the first thing written, ended with its real outcome."""

from __future__ import annotations

import atexit
import copy
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from darkit.engine.checkpoints.boundary import Boundary
from darkit.engine.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from darkit.engine.checkpoints.lighter import with_optimizer
from darkit.engine.checkpoints.snapshot import Snapshot
from darkit.engine.checkpoints.weights import bare
from darkit.engine.checkpoints.writer import CheckCopy
from darkit.engine.config import TrainerConfig
from darkit.engine.data.workers import may_follow_worker_death
from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_exports
from darkit.engine.log.media import Encoded
from darkit.engine.log.rows import RowStream, Sink
from darkit.engine.log.tensorboard import TensorBoardSink
from darkit.engine.log.values import number_of
from darkit.engine.loop import retention_of
from darkit.engine.metrics.gathering import require_metric
from darkit.engine.processes import own_rank
from darkit.engine.resume import Changes, Resume
from darkit.engine.session import Session
from darkit.engine.stop import StopTraining
from darkit.errors import CheckpointCorruptError, CheckpointNotFoundError, ConfigError, NonFiniteLossError
from darkit.runs import files
from darkit.runs.checkpoints import checkpoint_path, find_checkpoint, list_checkpoints, manifest_path
from darkit.runs.log import DEFAULT_COLUMNS, CsvLog

logger = logging.getLogger(__name__)
NO_MEDIA: Mapping[str, Encoded] = {}
_NO_METRICS = ("step", "epoch", "time", "lr")


class RunParts(NamedTuple):
    """What a run is created from, as it is now: a trainer's attributes may be set at any time."""

    kind: str
    """Class of the trainer, for messages."""
    root: Path
    config: TrainerConfig
    model: nn.Module
    tokenizer: Any
    max_step: int


class SaveStep(Protocol):
    """Save a step; ``boundary`` is the state at its end, if another step has begun since."""

    def __call__(self, step: int, *, boundary: Boundary | None = None) -> Path: ...


class RunRecorder:
    """Record one trainer's run.

    The first thing written creates the run. It ends with the block of `running`: a hand-written ``train`` or a
    ``with``; outside of both it ends with the process. What is saved or logged after the end goes to the same files and
    leaves the status as it is.

    Args:
        parts: Returns what the run is created from.
        save: Saves a step of the trainer, by calling `save`.
        columns: The log's only columns, or None for the default ones and any others.
        series: The curves to show.
        resumes: Whether the trainer was given ``resume=``; nothing can be written before `resume`.

    Attributes:
        session: The open session, or None.
        folder: The run directory, or None before it exists.
        step: The last completed step.
        evaluated: Whether the trainer has evaluated since then.
    """

    def __init__(
        self,
        parts: Callable[[], RunParts],
        save: SaveStep,
        columns: Sequence[str] | None,
        series: Mapping[str, Sequence[str]],
        *,
        resumes: bool,
    ) -> None:
        self.columns = columns
        self.series = series
        self.session: Session | None = None
        self.folder: Path | None = None
        self.step = 0
        self.evaluated = False
        self._parts = parts
        self._save_step = save
        self._resumes = resumes
        self._resumed: tuple[Resume | None, Changes] = (None, {})
        self._saved = 0
        self._handles_signals = False
        self._blocks = 0
        self._values: dict[str, Any] = {}
        self._values_are_old = False
        self._seen: set[str] = set()
        self._boundary = Boundary()
        self._recorded = -1
        self._moved = False
        self._versions = 0
        self._hook: Any = None
        self._error_before: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and no block keeps it open."""
        return self.session is None and self.folder is not None and not self._blocks

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the run open for a block, save the last step if the block did not, and record how it ended.

        A block left because of a request to stop ends well, or ends the process as a signal would.
        """
        self._blocks += 1
        try:
            yield
            self.save_last()
            self._warn_if_nothing_is_saved()
        except StopTraining as stop:
            request = self.session.guard.request if self.session is not None else None
            self.end(stop)
            if request is not None:
                request.end_process()
        except BaseException as error:
            self.save_after(error)
            guard = self.session.guard if self.session is not None else None
            if guard is not None and may_follow_worker_death(error) and guard.is_asked_soon():
                self.end(StopTraining())  # the signal went to the data workers as well
                guard.request.end_process()
            else:
                self.end(error)
                raise
        else:
            self.end()
        finally:
            self._blocks -= 1

    def resume(self, found: Resume | None, changes: Changes) -> None:
        """Set the run to resume, or None to start a new one, and the settings that differ from before."""
        self._resumes, self._resumed = False, (found, changes)

    def open(self) -> Session:
        """Return the open session; the first call creates the run, a call after its end reopens it."""
        if self.session is None:
            parts = self._parts()
            config = copy.copy(parts.config)
            found, changes = self._resumed
            same = found if found is not None and found.same_run else None
            rank = own_rank(config)
            if self.folder is not None:
                session = Session.reopen(self.folder, self.step, keep_log=True, rank=rank)
            elif self._resumes:
                raise ConfigError("resume= takes effect when train() is called: before that nothing can be written.")
            elif same is not None:
                session = Session.reopen(same.run.path, same.step, rank=rank)
                self.step = same.step
            else:
                session = Session.create(parts.root, config, type(bare(parts.model)).__name__, rank)
            created = self.folder is None
            self.attach(session)
            try:
                if same is not None and created and session.writes:
                    same.set_aside_later()
                description = describe_model(parts.model)
                session.describe(description, config, self.series, {}, changes=changes if created else {})
                if session.writes and created:
                    write_exports(session.folder, parts.model, config, parts.tokenizer, description)
                session.begin(parts.max_step, self.columns, self._sinks, retention_of(config), console=config.console)
            except BaseException as error:
                self.end(error)
                raise
            self._error_before = getattr(sys, "last_value", None)
            self._hook = register_optimizer_step_pre_hook(self._note_move)
            atexit.register(self._end_at_exit)
            return session
        return self.session

    def attach(self, session: Session) -> None:
        """Record into a session that is already open."""
        self.session, self.folder = session, session.folder

    def end(self, error: BaseException | None = None) -> None:
        """End the run if it is open: ``finished``, or the state that the error means."""
        atexit.unregister(self._end_at_exit)
        if self._hook is not None:
            self._hook.remove()
        self._boundary = Boundary()  # it holds the memory of the weights
        session, self.session = self.session, None
        if session is not None:
            try:
                session.end(error)
            finally:
                if not session.folder.exists():  # nothing had begun
                    self.folder = None

    def record_step(self, step: int, model: nn.Module) -> None:
        """Record a completed step of the model.

        Raises:
            ConfigError: The ``val_`` metric that decides which checkpoint is best is missing after an evaluation.
        """
        self.step = self._recorded = step
        self._moved, self._versions = False, _count_changes(model)
        self._boundary.record(bare(model))
        if self.session is not None:
            self.session.step = step
            if not self._handles_signals and self._blocks:  # a loop that reports its steps can be stopped between them
                self.session.guard.install()
                self._handles_signals = True
        self._values_are_old = True
        if self.evaluated:
            self.evaluated = False
            config = self._parts().config
            if config.keep_best and config.monitor.startswith("val_"):
                require_metric(config.monitor, self._seen, step, now=True)

    def refuse_uncounted(self) -> None:
        """Refuse a second step of a loop that does not count them. Raises `ConfigError`."""
        if self._recorded == 1 and self._moved:
            raise ConfigError(
                f"{self._parts().kind}.train() does not count its steps, so that all of them would be step 1: "
                "set self.current_step (from 0) before self._auto_save_pretrained()."
            )

    def _warn_if_nothing_is_saved(self) -> None:
        """Warn of a loop that trained and reported no step: its run has no checkpoint."""
        if self._moved and not self.step and self.session is not None and not list_checkpoints(self.session.folder):
            logger.warning(
                "%s.train() reported no step, so nothing is saved: set self.current_step and call "
                "self._auto_save_pretrained() after each step, or call save_pretrained() now.",
                self._parts().kind,
            )

    def stop_if_asked(self) -> None:
        """Leave the loop, with its last step saved, when a stop was requested."""
        if self.session is None or not self._blocks or not self.session.guard.request.reason:
            return
        if self.step < self._parts().max_step:
            self.save_last()
            raise StopTraining

    def log(self, row: dict[str, Any], media: Mapping[str, Encoded] = NO_MEDIA) -> None:
        """Append a row to the log, and its media to those of the run; a row without a time gets the current one."""
        if row and "time" not in row and (self.columns is None or "time" in self.columns):
            row = {**row, "time": time.time()}
        if self.folder is not None and self.is_over:
            self._append(self.folder, row, media)
            return
        stream = self.open().stream
        if stream is not None:
            self._put(stream, row, media)
        self.record_values(row)

    def _put(self, stream: RowStream, row: dict[str, Any], media: Mapping[str, Encoded]) -> None:
        if row or not media:
            stream.put(row)
        if media:
            step = number_of("step", row.get("step"))
            stream.put_media(self.step if step is None else int(step), media)

    def record_values(self, values: Mapping[str, Any]) -> None:
        """Record values of the step that `record_step` gets next, for its checkpoint."""
        if self._values_are_old:
            self._values, self._values_are_old = {}, False
        self._values.update(values)
        self._seen.update(values)

    def save(self, step: int, content: Mapping[str, Any], *, wait: bool = True, check: CheckCopy) -> Path:
        """Write a checkpoint; saving a step again after the end replaces only its weights and optimizer.

        Unless the caller wants to ``wait`` until it is on the disk, a thread writes a copy of the content, after a
        ``check`` of it.
        """
        if self.is_over and self.folder is not None:
            check(content)
            return self._save_again(self.folder, step, content)
        session = self.open()
        if session.stream is not None:
            session.stream.flush()
        if session.writer is not None:
            session.writer.save(step, content, self._metrics(), check)
            if wait:
                session.writer.wait()
        self._saved = step
        if step > self.step:  # a loop that saves itself
            self.step = session.step = step
        return checkpoint_path(session.folder, step)

    def _save_again(self, folder: Path, step: int, content: Mapping[str, Any]) -> Path:
        with Session.reopen(folder, step, rank=own_rank(self._parts().config)) as session:
            manifest = files.read_json(manifest_path(checkpoint_path(folder, step)))
            metrics = self._metrics() or manifest.get("metrics") or {}
            content = Snapshot().copy(_renewed(folder, step, content))
            return write_checkpoint(folder, step, content, metrics=metrics, run_id=session.run_id)

    def save_last(self, boundary: Boundary | None = None) -> None:
        """Save the last completed step unless it is saved: a loop may end before ``max_step``, or between saves.

        ``boundary`` is as in `SaveStep`.
        """
        if self.session is None or not 0 < self.step <= self._parts().max_step:
            return
        if self._saved != self.step and not checkpoint_path(self.session.folder, self.step).exists():
            self._save_step(self.step, boundary=boundary)

    def save_after(self, error: BaseException) -> None:
        """Save the last step recorded before an error, unless the weights have changed since."""
        if self.session is None or self._recorded != self.step or isinstance(error, NonFiniteLossError):
            return
        if self._moved or self._versions != _count_changes(self._parts().model):
            error.add_note(f"Step {self.step} could not be saved: the weights have changed since.")
            return
        if not self._values_are_old:  # values logged since belong to the step that failed
            self._values = {}
        try:
            self.save_last(self._boundary)
        except BaseException as late:
            error.add_note(f"The last step could not be saved: {type(late).__name__}: {late}")

    def _note_move(self, *arguments: Any) -> None:
        self._moved = True

    def _append(self, folder: Path, row: dict[str, Any], media: Mapping[str, Encoded]) -> None:
        with Session.reopen(folder, self.step, rank=own_rank(self._parts().config)) as session:
            if session.writes:
                fixed = self.columns is not None
                log = CsvLog(folder / files.LOG, self.columns or DEFAULT_COLUMNS, fixed=fixed)
                with closing(RowStream(log)) as stream:
                    self._put(stream, row, media)

    def _sinks(self) -> list[Sink]:
        if not self._parts().config.tensorboard or self.folder is None:
            return []
        return [TensorBoardSink(self.folder / files.TENSORBOARD, self.step + 1 if self.step else None)]

    def _metrics(self) -> dict[str, float]:
        numbers = {key: number_of(key, value) for key, value in self._values.items() if key not in _NO_METRICS}
        return {key: float(number) for key, number in numbers.items() if number is not None}

    def _end_at_exit(self) -> None:
        """End a run that is still open when the process ends: by an uncaught exception, or well."""
        error = getattr(sys, "last_value", None)
        if error is not None and error is not self._error_before:
            self.save_after(error)
            self.end(error)
            return
        with self.running():
            pass


def _count_changes(model: nn.Module) -> int:
    return sum(parameter._version for parameter in model.parameters())


def _renewed(folder: Path, step: int, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a saved step with new weights and optimizer; only the saved one has the data position and generators."""
    try:
        before = read_checkpoint(find_checkpoint(folder, step))
    except (CheckpointNotFoundError, CheckpointCorruptError):
        return content
    new = {key: content[key] for key in ("state_dict", "optimizer_state_dict") if content[key] is not None}
    return (with_optimizer(before) if "optimizer_state_dict" in new else before) | new
