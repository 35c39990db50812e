"""What surrounds a training, whoever writes the loop: run directory, lock, status, log, and a true end."""

from __future__ import annotations

import os
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lightning.pytorch.utilities import rank_zero_only

from darkit.engine.config import TrainerConfig
from darkit.engine.exports import ModelDescription
from darkit.engine.stream import RowStream, Sink
from darkit.errors import ConfigError, DarkitError, RunExistsError, StorageError
from darkit.runs import files, status
from darkit.runs.checkpoints import list_checkpoints
from darkit.runs.lock import RunLock
from darkit.runs.log import DEFAULT_COLUMNS, CsvLog, last_values
from darkit.runs.names import create_fresh, run_path
from darkit.runs.provenance import describe_environment
from darkit.runs.run import Run

DEFAULT_SERIES: Mapping[str, Sequence[str]] = {
    "train_loss": ["step", "train_loss"],
    "val_loss": ["step", "val_loss"],
}
_SHARED_NAME = "DARKIT_RUN_NAME"  # tells processes that Lightning starts for other devices what the first one chose


class Session:
    """One training of a run, from its first file to its last.

    Used as a context manager it ends the run with the state that the block's outcome means: ``finished``, ``stopped``
    after Ctrl-C, or ``crashed`` with the traceback. A new run whose first step failed for a reason that the user can
    mend leaves nothing behind. On the other processes of a training on several devices it touches no file.

    Attributes:
        folder: The run directory.
        run_id: A fresh id, or the continued run's.
        step: The last completed step; whoever runs the loop keeps it true.
    """

    def __init__(self, folder: Path, *, created: bool, writes: bool) -> None:
        self.folder = folder
        self.run_id = uuid.uuid4().hex
        self.step = 0
        self.stream: RowStream | None = None
        self._first_step = 0
        self._keeps_log = False
        self._created = created
        self._writes = writes
        self._status: status.StatusWriter | None = None
        self._lock = RunLock(folder) if writes else None

    @classmethod
    def create(cls, root: Path, config: TrainerConfig, model_name: str) -> Self:
        """Creates a run's folder under ``config.name``, or under a fresh name which is then set there.

        Raises:
            NameInvalidError: The name is not one.
            RunExistsError: It is taken.
            StorageError: The root cannot be written to.
        """
        if _rank():
            config.name = config.name or os.environ.get(_SHARED_NAME)
            return cls(run_path(root, config.name), created=False, writes=False)
        if config.name is None:
            folder = create_fresh(root, model_name)
            config.name = os.environ[_SHARED_NAME] = folder.name
        else:
            folder = refuse_existing(root, config.name)
            try:
                folder.mkdir(parents=True)
            except FileExistsError as error:
                if root.is_dir():
                    refuse_existing(root, config.name)
                raise StorageError(f"The runs' root {root} is not a folder.") from error
            except OSError as error:
                raise StorageError(f"Cannot create the run {config.name!r} in {root}: {error.strerror}.") from error
        return cls(folder, created=True, writes=True)

    @classmethod
    def reopen(cls, folder: Path, step: int, *, keep_log: bool = False) -> Self:
        """Goes on with a run after ``step``.

        Args:
            folder: The run directory.
            step: The last completed step that counts.
            keep_log: Whether rows of later steps stay, because they are not going to be done again.

        Raises:
            RunLockedError: Another process trains it.
        """
        session = cls(folder, created=False, writes=not _rank())
        session.run_id = Run(folder).info.get("id", session.run_id)
        session.step = session._first_step = step
        session._keeps_log = keep_log
        return session

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's files."""
        return self._writes

    def describe(
        self,
        model: ModelDescription,
        config: TrainerConfig,
        series: Mapping[str, Sequence[str]],
        data: Mapping[str, Any],
        composed: str = "",
    ) -> None:
        """Writes ``run.json``, and ``config.yaml`` if there is one, for a new run; a continued one keeps its own."""
        if not self._writes or not self._created:
            return
        facts = {
            "id": self.run_id,
            "name": self.folder.name,
            "created": time.time(),
            "model": model.as_dict(),
            "series": {name: list(columns) for name, columns in check_series(series).items()},
            "seed": config.seed,
            "data": dict(data),
            **describe_environment(),
        }
        files.write_json(self.folder / files.RUN, facts)
        if composed:
            files.write_text(self.folder / files.COMPOSED_CONFIG, composed)

    def begin(
        self,
        max_step: int | None,
        columns: Sequence[str] | None = None,
        sinks: Callable[[], Sequence[Sink]] = tuple,
    ) -> None:
        """Opens the log and says ``running``; where that was done already, only the sinks are new.

        Args:
            max_step: The step at which the run ends, or None.
            columns: The log's only columns, or None for the default ones and whatever comes.
            sinks: Makes what else takes the rows.
        """
        if not self._writes:
            return
        if self.stream is not None:
            self.stream.add(sinks())
            return
        log = CsvLog(self.folder / files.LOG, columns or DEFAULT_COLUMNS, fixed=columns is not None)
        if not self._created and not self._keeps_log:
            log.cut_after(self.step)
        self._status = status.StatusWriter(self.folder, max_step, lambda: self.step)
        self.stream = RowStream(log, sinks())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """Writes what is left, says how it ended and frees the lock; a second call does nothing.

        Args:
            error: What ended the training, or None.

        Raises:
            StorageError: Something could not be written, and nothing else had gone wrong before.
        """
        if not self._writes or self._lock is None:
            return
        try:
            failure = self._end_log(error)
            if self._status is not None:
                self._status.close(*_outcome(failure))
            if failure is not None and error is None:
                raise failure
        finally:
            self._remove_if_nothing_began(error)
            self._lock.release()
            self._lock = None
            if os.environ.get(_SHARED_NAME) == self.folder.name:
                del os.environ[_SHARED_NAME]

    def _end_log(self, error: BaseException | None) -> BaseException | None:
        try:
            if self.stream is not None:
                self.stream.close()
        except Exception as late:
            if error is None:
                return late
            error.add_note(f"The log could not be completed either: {late}")
        return error

    def _remove_if_nothing_began(self, error: BaseException | None) -> None:
        mendable = isinstance(error, DarkitError) and not isinstance(error, StorageError)
        if not mendable or not self._created or self.step != self._first_step:
            return
        if not list_checkpoints(self.folder) and not last_values(self.folder / files.LOG):
            shutil.rmtree(self.folder)


def _rank() -> int:
    """Returns which of several training processes this one is."""
    return int(getattr(rank_zero_only, "rank", 0))


def check_series(series: Any) -> Mapping[str, Sequence[str]]:
    """Checks curves to show: name -> [x column, y column]. Raises `ConfigError`."""
    pairs = series.values() if isinstance(series, Mapping) else [None]
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(item, str) for item in pair):
            raise ConfigError(f"visual_series must be like {{'train_loss': ['step', 'train_loss']}}, not {series!r}.")
    return series  # type: ignore[no-any-return]


def refuse_existing(root: Path, name: str) -> Path:
    """Returns where a new run of this name goes. Raises `RunExistsError` when it is taken."""
    folder = run_path(root, name)
    if folder.exists():
        raise RunExistsError(f"There is a run {name!r} already in {root}; choose another name, or resume it.")
    return folder


def _outcome(error: BaseException | None) -> tuple[str, str, str]:
    if error is None:
        return status.FINISHED, "", ""
    if isinstance(error, KeyboardInterrupt):
        return status.STOPPED, "It was interrupted from the keyboard.", ""
    text = "".join(traceback.format_exception(error))
    return status.CRASHED, f"{type(error).__name__}: {error}", text
