"""The session of a training, for any loop: run directory, lock, status, log and outcome."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from darkit.engine.checkpoints.writer import CheckpointWriter
from darkit.engine.composed import record_resume
from darkit.engine.config import TrainerConfig
from darkit.engine.description.describe import ModelDescription
from darkit.engine.description.scripts import refuse_in_script
from darkit.engine.device import describe_machine, process_seed
from darkit.engine.log.console import Console
from darkit.engine.log.rows import RowStream, Sink
from darkit.engine.log.system import SystemLog
from darkit.engine.meeting import Meeting, agree_on_run, current
from darkit.engine.outcome import outcome_of, remove_unbegun
from darkit.engine.resume import Changes
from darkit.engine.series import check_series
from darkit.engine.stop import Rewind, SignalGuard, StopRequest
from darkit.errors import (
    ConfigError,
    NonFiniteLossError,
    StorageError,
    first_error,
)
from darkit.runs import configs, files, seal, status
from darkit.runs.code import CODE_SEAL, seal_code
from darkit.runs.forks import forget_in_child
from darkit.runs.lock import RunLock
from darkit.runs.log import DEFAULT_COLUMNS, CsvLog
from darkit.runs.media import MediaStore
from darkit.runs.names import create_fresh, create_named, remove_unused, run_path
from darkit.runs.packages import changed_packages
from darkit.runs.provenance import describe_environment
from darkit.runs.requests import forget_stop, read_stop
from darkit.runs.retention import Retention
from darkit.runs.run import START_RUN, Run

DEFAULT_SERIES: Mapping[str, Sequence[str]] = {
    "train_loss": ["step", "train_loss"],
    "val_loss": ["step", "val_loss"],
}


class Session:
    """One training of a run, from its first file to its last.

    As a context manager it ends the run with the state of the block's outcome: ``finished``, ``stopped`` after Ctrl-C,
    or ``crashed`` with the traceback. A new run that fails before it completes a step leaves nothing behind. In the
    other processes of a training on several devices it touches no file.

    While it is open it watches for requests to stop (``stop.json``; signals, once `guard` is installed), writes the
    status and the system log, and detects stalls.

    Attributes:
        guard: Handles signals when installed, and holds the request to stop.
        signs: Counter of progress between steps; the loop increments it.
        folder: The run directory.
        run_id: A new id, or the resumed run's.
        step: The last completed step; the loop updates it.
        max_step: The step at which the run ends, or None; set by `begin` and `expect`.
        writes: Whether this process writes the run's files.
        stream: The log between `begin` and `end`, and `writer` the writer of checkpoints; None in a process that does
            not write.
        meeting: The other processes, if the session has met them itself and not the caller.
        number: Which training of its process it is, counted from 1.
        given_name: The name that it was given, or None for a generated one.
        forked: Whether this is a copy in a forked child, which leaves the run alone.
        end_reason: Why a training that ended well ended before its last planned step, in one sentence, or empty.
    """

    begun = 0  # trainings of this process

    def __init__(
        self, folder: Path, *, created: bool, writes: bool, after: int = 0, paused: Session | None = None
    ) -> None:
        Session.begun += paused is None
        self.number: int = Session.begun if paused is None else paused.number
        self.folder = folder
        self.given_name: str | None = folder.name
        self.run_id = uuid.uuid4().hex
        self.step = self._first_step = after
        self.signs = 0
        self.end_reason = ""
        self.guard = SignalGuard(StopRequest())
        self.stream: RowStream | None = None
        self.writer: CheckpointWriter | None = None
        self.max_step: int | None = None
        self._keeps_log = False
        self._created = created
        self._recorded = False
        self.project: str | None = None
        self.writes = writes
        self._status: status.StatusWriter | None = None
        self._console: Console | None = None
        self._lock = RunLock(folder) if writes and paused is None else None
        if paused is not None:
            self._take_over(paused)
        self.forked = False
        self.meeting: Meeting | None = None
        forget_in_child(self)
        if (meeting := current()) is not None:
            meeting.attach(self.end, self.guard.request)

    def forget(self) -> None:
        """Leave the run to the parent: a forked child neither writes into it nor ends it."""
        self.forked, self.writes, self._lock = True, False, None

    def check(self) -> None:
        """Check that the folder is still this run's, and not a successor of the same name.

        Raises:
            RunReplacedError: The folder was deleted, moved or replaced.
        """
        if self._lock is not None:
            self._lock.check()

    @classmethod
    def create(cls, root: Path, config: TrainerConfig, model_name: str, rank: int = 0, *, after: int = 0) -> Self:
        """Create a run's folder under ``config.name``, or under a generated name that is then set there.

        Args:
            root: The folder of the runs.
            config: The trainer's config.
            model_name: The start of a generated name.
            rank: The rank of this process; only rank 0 writes.
            after: The step after which the run begins; of a fork that of its parent's checkpoint.

        Raises:
            NameInvalidError: The name is not valid.
            RunExistsError: The name is taken.
            StorageError: The root is not writable.
            ModelError: A script that is being loaded for its classes starts a training.
        """
        refuse_in_script()
        if rank:
            agree_on_run(config, after)
            if config.name is None:
                raise ConfigError("Several processes that train together need a name= for their run.")
            return cls(run_path(root, config.name), created=False, writes=False, after=after)
        given = config.name
        folder = create_fresh(root, model_name) if given is None else create_named(root, given)
        config.name = folder.name
        agree_on_run(config, after)
        try:
            session = cls(folder, created=True, writes=True, after=after)
        except StorageError:  # the file system cannot lock it
            remove_unused(folder)
            raise
        session.given_name = given
        return session

    @classmethod
    def reopen(
        cls, folder: Path, step: int, *, keep_log: bool = False, rank: int = 0, paused: Session | None = None
    ) -> Self:
        """Reopen a run after ``step``.

        Args:
            folder: The run directory.
            step: The last completed step that counts.
            keep_log: Whether rows of later steps stay, because those steps are not repeated.
            rank: As in `create`.
            paused: The session that was paused for this one, which takes over its lock and its status.

        Raises:
            RunLockedError: Another process trains the run.
        """
        refuse_in_script()
        agree_on_run(TrainerConfig(name=folder.name), step)
        session = cls(folder, created=False, writes=not rank, after=step, paused=paused)
        if session.writes:
            files.remove_leftovers(folder)
        session.run_id = Run(folder).info.get("id", session.run_id)
        session._keeps_log = keep_log
        return session

    def describe(
        self,
        model: ModelDescription | None,
        config: TrainerConfig | None,
        series: Mapping[str, Sequence[str]],
        data: Mapping[str, Any],
        composed: str = "",
        changes: Changes | None = None,
        lineage: Mapping[str, Any] | None = None,
        objective: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``run.json``, and ``config.yaml`` of a composed config, for a new run; add an entry for a resumed one.

        ``data`` has facts about the training data, ``composed`` is the composed config as YAML, or empty, and
        ``changes`` are the settings of a resumed run that differ from before. ``lineage`` says what a fork began from,
        and ``objective`` which loss and metrics only the code of its script has.
        ``model`` is None if it is not known, or not known anew; ``config`` is None for a loop that seeds its generators
        itself.
        """
        if not self.writes:
            return
        self.check()
        self._machine = describe_machine(config)
        project = (config.project if config is not None else None) or self.project
        if not self._created and not lineage and (self.step or self._keeps_log) and Run(self.folder).info:
            self._record_resume(changes or {}, model, project, composed)
            return
        described = describe_environment() | self._machine
        environment = described.pop("environment")
        facts = {
            "id": self.run_id,
            "name": self.folder.name,
            "created": time.time(),
            **({"project": project} if project else {}),
            "model": (model or ModelDescription("", "none", "", {})).as_dict(),
            "series": {name: list(columns) for name, columns in check_series(series).items()},
            **({"made_by": START_RUN} if config is None else configs.recorded_settings(config)),
            "data": dict(data),
            "initial_seed": process_seed(),
            "training": {"number": self.number, "name": self.given_name},
            **({"fork": dict(lineage)} if lineage else {}),
            **({"objective": dict(objective)} if objective else {}),
            **described,
        }
        facts[CODE_SEAL] = seal_code(facts, environment)
        if composed:
            facts["composed_seal"] = seal.make(composed, purpose=files.COMPOSED_CONFIG)
        files.write_json(self.folder / files.ENVIRONMENT, environment)
        files.write_json(self.folder / files.RUN, facts)
        if composed:
            files.write_text(self.folder / files.COMPOSED_CONFIG, composed)

    def _record_resume(
        self, changes: Changes, model: ModelDescription | None, project: str | None, composed: str
    ) -> None:
        if self._recorded:  # by the caller that opened it
            return
        self._recorded = True
        facts = Run(self.folder).info
        environment = describe_environment() | self._machine
        environment["git"].pop("diff", None)
        packages = environment.pop("environment")["packages"]
        environment["packages"] = changed_packages(Run(self.folder).environment.get("packages"), packages)
        described = {} if self._keeps_log or model is None else {"model": model.as_dict()}  # as config.json then
        pairs = {key: list(pair) for key, pair in changes.items()}
        entry = {"after_step": self.step, "time": time.time(), "changes": pairs, **environment}
        entry |= record_resume(composed)
        files.write_json(
            self.folder / files.RUN,
            facts
            | described
            | ({"project": project} if project else {})
            | {"continued": [*facts.get("continued", []), entry]},
        )

    def begin(
        self,
        max_step: int | None,
        columns: Sequence[str] | None = None,
        sinks: Callable[[], Sequence[Sink]] = tuple,
        retention: Retention | None = None,
        *,
        first_columns: Sequence[str] = DEFAULT_COLUMNS,
        console: bool = True,
    ) -> None:
        """Open the log and set the status to ``running``; a second call only adds the sinks.

        Args:
            max_step: The step at which the run ends, or None.
            columns: The log's only columns, or None for any.
            sinks: Returns further sinks for the rows.
            retention: Which checkpoints to keep; by default all.
            first_columns: The columns that a log of any columns starts with.
            console: Whether to record what the process prints.
        """
        self.max_step = max_step
        if not self.writes:
            return
        if self.stream is not None:
            self.stream.add(sinks())
            return
        log = CsvLog(self.folder / files.LOG, columns or first_columns, fixed=columns is not None)
        if not self._created and not self._keeps_log:
            log.cut_after(self.step)
            MediaStore(self.folder, check=self.check).cut_after(self.step)
        self.writer = CheckpointWriter(self.folder, run_id=self.run_id, retention=retention, check=self.check)
        if (before := self._status) is None:
            forget_stop(self.folder)
        else:
            self._look_for_request()
        if console:
            resumed = not self._created and not self._keeps_log
            self._console = Console(self.folder, check=self.check, resumed_after=self.step if resumed else None)
        if before is not None:
            before.leave()
        self._status = status.StatusWriter(
            self.folder,
            max_step,
            lambda: self.step,
            signs=lambda: (self.step, self.signs),
            watches=(
                self._look_for_request,
                SystemLog(self.folder, lambda: self.step),
                *([self._console.write] if self._console else []),
            ),
            check=self.check,
        )
        self.stream = RowStream(log, sinks(), check=self.check)

    def expect(self, max_step: int | None) -> None:
        """Set the step at which the run ends, which is known only now."""
        self.max_step = max_step
        if self._status is not None:
            self._status.max_step = max_step

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Rewind) and self.writes and not self.guard.request.reason:
            self._pause()
        else:
            self.end(error)

    def _pause(self) -> None:
        """Write pending data for a training that begins again at once; it stays running and locked.

        Raises:
            StorageError: Something could not be written; the session has ended.
        """
        try:
            for name in ("writer", "stream", "_console"):
                part, vars(self)[name] = vars(self)[name], None
                if part is not None:
                    part.close()
        except BaseException as error:
            self.end(error)
            raise
        self.guard.install_before_steps()

    def _take_over(self, paused: Session) -> None:
        paused.guard.uninstall()
        self._lock, paused._lock = paused._lock, None
        self._status, paused._status = paused._status, None

    def end(self, error: BaseException | None = None) -> None:
        """Write pending data and the final status, and release the lock; a second call does nothing.

        Raises:
            StorageError: Something could not be written, and no other error came before.
        """
        meeting, self.meeting = self.meeting, None
        cause = error if error is None or meeting is None else meeting.explain(error)
        try:
            if self.writes and self._lock is not None:
                self._end(cause, self._lock)
        finally:
            self.guard.uninstall()  # only now: an earlier signal must not interrupt the writing
            if meeting is not None:
                meeting.leave()

    def _end(self, error: BaseException | None, lock: RunLock) -> None:
        failure = error  # the one that ended the training, or the first one from now
        try:
            parts = (
                ("checkpoint", self.writer),
                ("log", self.stream),
                ("console", self._console),
                ("status", self._status),
            )
            for name, part in parts:
                try:
                    if isinstance(part, status.StatusWriter):
                        lost = failure.step if isinstance(failure, NonFiniteLossError) else None
                        asked, done = self.guard.request.reason, self.step == self.max_step
                        part.close(*outcome_of(failure, asked, complete=done, end_reason=self.end_reason), lost)
                        forget_stop(self.folder)
                    elif part is not None:
                        part.close()
                except BaseException as late:  # also an interrupt: the other parts have threads that write on
                    failure = first_error(failure, late, name)
            if failure is not None and error is None:
                raise failure
        finally:
            try:
                if error is not None and self._created and self.step == self._first_step:
                    remove_unbegun(self.folder, self._first_step, self.check, error)
            finally:
                lock.release()
                self._lock = None

    def _look_for_request(self) -> None:
        request = read_stop(self.folder)
        if request is not None:
            self.guard.request.ask(f"Stopped by {request.get('by', 'a person')}.")
