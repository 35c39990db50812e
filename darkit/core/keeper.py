"""What is kept around a trainer: its run, from the first thing that is written to a true end."""

from __future__ import annotations

import atexit
import copy
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

from darkit.engine.checkpoints.boundary import Boundary
from darkit.engine.checkpoints.checkpoint import bare, read_checkpoint, write_checkpoint
from darkit.engine.checkpoints.snapshot import Snapshot
from darkit.engine.data.workers import may_follow_a_death
from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_exports
from darkit.engine.log.rows import RowStream, Sink
from darkit.engine.log.tensorboard import TensorBoardSink
from darkit.engine.log.values import number_of
from darkit.engine.loop import retention_of
from darkit.engine.metrics.gathering import missing_metric
from darkit.engine.processes import own_rank
from darkit.engine.session import Session
from darkit.engine.stop import StopTraining
from darkit.errors import CheckpointCorruptError, CheckpointNotFoundError, ConfigError, NonFiniteLossError
from darkit.runs import files
from darkit.runs.checkpoints import checkpoint_path, find_checkpoint, list_checkpoints, manifest_path
from darkit.runs.log import DEFAULT_COLUMNS, CsvLog

if TYPE_CHECKING:
    from darkit.core.trainer import Trainer

logger = logging.getLogger(__name__)
_NO_METRICS = ("step", "epoch", "time", "lr")


class RunKeeper:
    """The run of one trainer.

    It is created by the first thing that is written, and ends with the block that `held` keeps it open for: a
    hand-written ``train`` or a ``with``. Outside of both it ends with the process. What is saved or logged after the
    end goes to the same files, and the run stays as it ended.

    Args:
        owner: The trainer; its root, model, config and tokenizer are looked at when the run is created.
        columns: The log's only columns, or None for the default ones and whatever comes.
        series: The curves to show.

    Attributes:
        session: The open session, or None.
        folder: The run directory, or None before it exists.
        step: The last completed step that the trainer told of.
        evaluated: Whether the trainer has evaluated since then.
    """

    def __init__(self, owner: Trainer, columns: Sequence[str] | None, series: Mapping[str, Sequence[str]]) -> None:
        self.owner = owner
        self.columns = columns
        self.series = series
        self.session: Session | None = None
        self.folder: Path | None = None
        self.step = 0
        self._saved = 0
        self._listens = False
        self._holders = 0
        self._values: dict[str, Any] = {}
        self._values_are_old = False
        self._seen: set[str] = set()
        self.evaluated = False
        self._boundary = Boundary()
        self._told = -1
        self._moved = False
        self._versions = 0
        self._hook: Any = None
        self._error_before: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and nothing keeps it open."""
        return self.session is None and self.folder is not None and not self._holders

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the run open for a block, saves the last step if the block did not, and ends the run truly.

        A block that was left because somebody asked the run to stop ends well, or ends the process as a signal would.
        """
        self._holders += 1
        try:
            yield
            self.save_last()
            self._warn_if_nothing_is_saved()
        except StopTraining as asked:
            request = self.session.guard.request if self.session is not None else None
            self.end(asked)
            if request is not None:
                request.end_process()
        except BaseException as error:
            self.save_after(error)
            guard = self.session.guard if self.session is not None else None
            if guard is not None and may_follow_a_death(error) and guard.is_asked_soon():
                self.end(StopTraining())  # the signal went to the data workers as well
                guard.request.end_process()
            else:
                self.end(error)
                raise
        else:
            self.end()
        finally:
            self._holders -= 1

    def open(self) -> Session:
        """Returns the open session; the first call creates the run, one after its end goes on with it."""
        if self.session is None:
            owner, config = self.owner, copy.copy(self.owner.config)
            going_on = owner._going_on
            same = going_on.found if going_on is not None and going_on.found.same_run else None
            rank = own_rank(config)
            if self.folder is not None:
                session = Session.reopen(self.folder, self.step, keep_log=True, rank=rank)
            elif owner._resume and going_on is None and not owner._begins_anew:
                raise ConfigError("resume= takes effect when train() is called: before that nothing can be written.")
            elif same is not None:
                session = Session.reopen(same.run.path, same.step, rank=rank)
                self.step = same.step
            else:
                session = Session.create(Path(owner.root), config, type(bare(owner.model)).__name__, rank)
            created = self.folder is None
            self.session, self.folder = session, session.folder
            try:
                if same is not None and created and session.writes:
                    same.set_aside_later()
                changes = going_on.changes if going_on is not None and created else {}
                description = describe_model(owner.model)
                session.describe(description, config, self.series, {}, changes=changes)
                if session.writes and created:
                    write_exports(session.folder, owner.model, config, owner.tokenizer, description)
                session.begin(owner.max_step, self.columns, self._sinks, retention_of(config))
            except BaseException as error:
                self.end(error)
                raise
            self._error_before = getattr(sys, "last_value", None)
            self._hook = register_optimizer_step_pre_hook(self._note_move)
            atexit.register(self._end_at_exit)
        return self.session

    def join(self, session: Session) -> None:
        """Takes the session that the engine opened for its training."""
        self.session, self.folder = session, session.folder

    def end(self, error: BaseException | None = None) -> None:
        """Ends the run if it is open: ``finished``, or what the error makes of it."""
        atexit.unregister(self._end_at_exit)
        if self._hook is not None:
            self._hook.remove()
        session, self.session = self.session, None
        if session is not None:
            try:
                session.end(error)
            finally:
                if not session.folder.exists():  # nothing had begun
                    self.folder = None

    def tell(self, step: int) -> None:
        """Takes note of a completed step."""
        self.step = self._told = step
        self._moved, self._versions = False, self._count_changes()
        self._boundary.take(bare(self.owner.model))
        if self.session is not None:
            self.session.step = step
            if not self._listens and self._holders:  # a loop that tells its steps can be stopped between them
                self.session.guard.install()
                self._listens = True
        self._values_are_old = True
        if self.evaluated:
            self._refuse_unknown_monitor(step)

    def refuse_uncounted(self) -> None:
        """Refuses a loop that ends another step without counting it. Raises `ConfigError`."""
        if self._told == 1 and self._moved and "current_step" not in vars(self.owner):
            raise ConfigError(
                f"{type(self.owner).__name__}.train() does not count its steps, so that all of them would be step 1: "
                "set self.current_step (from 0) before self._auto_save_pretrained()."
            )

    def _warn_if_nothing_is_saved(self) -> None:
        """Warns of a loop that trained and reported no step, of which a run has no checkpoint."""
        if self._moved and not self.step and self.session is not None and not list_checkpoints(self.session.folder):
            logger.warning(
                "%s.train() reported no step, so nothing of it is saved: set self.current_step and call "
                "self._auto_save_pretrained() after each step, or call save_pretrained() now.",
                type(self.owner).__name__,
            )

    def _refuse_unknown_monitor(self, step: int) -> None:
        """Refuses a monitor of evaluations after one that did not give it. Raises `ConfigError`."""
        config = self.owner.config
        self.evaluated = False
        if config.keep_best and config.monitor.startswith("val_") and config.monitor not in self._seen:
            raise missing_metric(config.monitor, self._seen, step)

    def stop_if_asked(self) -> None:
        """Leaves the loop that is being held when somebody asked for it, with its last step saved."""
        if self.session is None or not self._holders or not self.session.guard.request.reason:
            return
        if self.step < self.owner.max_step:
            self.save_last()
            raise StopTraining

    def put(self, row: dict[str, Any]) -> None:
        """Appends a row to the log."""
        if self.folder is not None and self.is_over:
            self._append(self.folder, row)
            return
        stream = self.open().stream
        if stream is not None:
            stream.put(row)
        self.note(row)

    def note(self, values: Mapping[str, Any]) -> None:
        """Takes note of values of the step that is about to be told of, for its checkpoint."""
        if self._values_are_old:
            self._values, self._values_are_old = {}, False
        self._values.update(values)
        self._seen.update(values)

    def save(self, step: int, content: Mapping[str, Any], *, wait: bool = True) -> Path:
        """Writes a checkpoint; one that is saved again after the end keeps all but its weights and optimizer.

        Args:
            step: The step.
            content: What it holds.
            wait: Whether it is on the disk when this returns; otherwise a thread writes a copy of the content.
        """
        if self.is_over and self.folder is not None:
            return self._save_again(self.folder, step, content)
        session = self.open()
        if session.stream is not None:
            session.stream.flush()
        if session.writer is not None:
            session.writer.save(step, content, self._metrics())
            if wait:
                session.writer.wait()
        self._saved = step
        if step > self.step:  # a loop that saves itself
            self.step = session.step = step
        return checkpoint_path(session.folder, step)

    def _save_again(self, folder: Path, step: int, content: Mapping[str, Any]) -> Path:
        with Session.reopen(folder, step, rank=own_rank(self.owner.config)) as session:
            metrics = self._metrics()
            manifest = files.read_json(manifest_path(checkpoint_path(folder, step)))
            metrics = metrics or manifest.get("metrics") or {}
            content = _renewed(folder, step, content)
            content = Snapshot().take(content)
            return write_checkpoint(folder, step, content, metrics=metrics, run_id=session.run_id)

    def save_last(self, boundary: Boundary | None = None) -> None:
        """Saves the last completed step if that was not done: a loop may end before ``max_step``, or between saves.

        Args:
            boundary: The state at the end of that step, if another step was begun since.
        """
        if self.session is None or not 0 < self.step <= self.owner.max_step:
            return
        if self._saved != self.step and not checkpoint_path(self.session.folder, self.step).exists():
            self.owner._save(self.step, boundary=boundary)

    def save_after(self, error: BaseException) -> None:
        """Saves the last step that a loop told of before an error, unless the weights have moved on since."""
        if self.session is None or self._told != self.step or isinstance(error, NonFiniteLossError):
            return
        if self._moved or self._versions != self._count_changes():
            error.add_note(f"Step {self.step} could not be saved: the weights have changed since.")
            return
        if not self._values_are_old:  # what was logged since is of the step that failed
            self._values = {}
        try:
            self.save_last(self._boundary)
        except BaseException as late:
            error.add_note(f"The last step could not be saved: {type(late).__name__}: {late}")

    def _count_changes(self) -> int:
        return sum(parameter._version for parameter in self.owner.model.parameters())

    def _note_move(self, *arguments: Any) -> None:
        self._moved = True

    def _append(self, folder: Path, row: dict[str, Any]) -> None:
        with Session.reopen(folder, self.step, rank=own_rank(self.owner.config)) as session:
            if session.writes:
                fixed = self.columns is not None
                stream = RowStream(CsvLog(folder / files.LOG, self.columns or DEFAULT_COLUMNS, fixed=fixed))
                try:
                    stream.put(row)
                finally:
                    stream.close()

    def _sinks(self) -> list[Sink]:
        if not self.owner.config.tensorboard or self.folder is None:
            return []
        return [TensorBoardSink(self.folder / files.TENSORBOARD, self.step + 1 if self.step else None)]

    def _metrics(self) -> dict[str, float]:
        numbers = {key: number_of(key, value) for key, value in self._values.items() if key not in _NO_METRICS}
        return {key: float(number) for key, number in numbers.items() if number is not None}

    def _end_at_exit(self) -> None:
        """Ends a run that nobody ended, as the process ends: by an exception that nobody caught, or well."""
        error = getattr(sys, "last_value", None)
        if error is not None and error is not self._error_before:
            self.save_after(error)
            self.end(error)
            return
        with self.held():
            pass


def _renewed(folder: Path, step: int, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Puts new weights into what is saved of a step: where the data and the generators stood is known only there."""
    try:
        before = read_checkpoint(find_checkpoint(folder, step))
    except (CheckpointNotFoundError, CheckpointCorruptError):
        return content
    return before | {key: content[key] for key in ("state_dict", "optimizer_state_dict") if content[key] is not None}
