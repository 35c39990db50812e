"""Handles of runs: everything a reader wants to know, without torch."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.errors import RunNotFoundError, StorageError, nearest
from darkit.runs import files
from darkit.runs.checkpoints import Checkpoint, latest_checkpoint, list_checkpoints
from darkit.runs.home import base
from darkit.runs.html import run_html
from darkit.runs.inert import inert
from darkit.runs.log import read_log
from darkit.runs.names import is_name, run_path, split_reference
from darkit.runs.safe import as_dict, finite_number
from darkit.runs.status import Status, read_status

if TYPE_CHECKING:
    import polars


START_RUN = "start_run"


class Run:
    """A handle on one run directory. It holds nothing: every question reads the files again.

    Attributes:
        path: The run directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        details = self.details
        return f"Run({self.name!r}, {inert(details.state)}, step {details.step}, {str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: state, last and best values, and a small chart."""
        try:
            log, problem = self.log(), ""
        except StorageError as error:
            log, problem = None, str(error)
        return run_html(self.name, self.details, log, self.series, self.trainer_config, problem)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.path.name

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``stopped``, ``crashed`` or ``unknown``; `details` has the rest."""
        return self.details.state

    @property
    def details(self) -> Status:
        """State, step, reason and traceback."""
        return read_status(self.path)

    @property
    def info(self) -> dict[str, Any]:
        """The content of ``run.json``: id, model class, series, versions, git, command, host, seed and data."""
        return files.read_json(self.path / files.RUN)

    @property
    def environment(self) -> dict[str, Any]:
        """The content of ``environment.json``: ``packages`` (name -> version), ``files``, ``left_out``; or nothing."""
        return files.read_json(self.path / files.ENVIRONMENT)

    @property
    def config(self) -> dict[str, Any]:
        """The model's config or, in a run of `darkit.start_run`, the config that was given there."""
        return files.read_json(self.path / files.MODEL_CONFIG)

    @property
    def has_own_loop(self) -> bool:
        """Whether `darkit.start_run` made it: its loop, and its config, are not darkit's."""
        return self.info.get("made_by") == START_RUN

    @property
    def model_config(self) -> dict[str, Any]:
        """What the model is rebuilt from: `config`, or what ``run.json`` has for a run of `darkit.start_run`."""
        model = self.info.get("model")
        own = model.get("config") if isinstance(model, dict) else None
        return own if isinstance(own, dict) else self.config

    @property
    def trainer_config(self) -> dict[str, Any]:
        """The trainer's config."""
        return files.read_json(self.path / files.TRAINER_CONFIG)

    @property
    def model_class(self) -> str:
        """Where the model's class is imported from, or empty."""
        path = as_dict(self.info.get("model")).get("class")
        return path if isinstance(path, str) else ""

    @property
    def origin(self) -> dict[str, Any]:
        """Which log an imported run was made of: its kind, path and digest; empty for a run of darkit's own."""
        origin = self.info.get("origin")
        return origin if isinstance(origin, dict) else {}

    @property
    def fork(self) -> dict[str, Any]:
        """Of a fork the run, checkpoint and digest it began from, and its changes; see `darkit.runs.lineage`."""
        return as_dict(self.info.get("fork"))

    @property
    def created(self) -> float:
        """When the run started, in Unix seconds, or 0."""
        return finite_number(self.info.get("created")) or 0.0

    @property
    def series(self) -> dict[str, list[str]]:
        """The curves to show: series name -> [x column, y column]."""
        return {name: columns for name, columns in as_dict(self.info.get("series")).items() if is_pair(columns)}

    def log(self) -> polars.DataFrame:
        """Return the log, one row per logged step; an empty frame before the first one."""
        return read_log(self.path / files.LOG)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints, lowest step first."""
        return list_checkpoints(self.path)

    def latest_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint with the highest step that can be trusted, or None."""
        return latest_checkpoint(self.path)


def is_pair(columns: Any) -> bool:
    """Return whether a recorded series names two columns, x and y."""
    return isinstance(columns, list) and len(columns) == 2 and all(isinstance(column, str) for column in columns)


def load(name: str, *, root: Path | None = None) -> Run:
    """Find a run by name.

    Args:
        name: The run's name; a checkpoint after a colon is allowed and ignored here.
        root: Where the runs are; by default below the home.

    Raises:
        NameInvalidError: It is not a name.
        RunNotFoundError: There is no such run; the text lists what there is, nearest first.
    """
    where = root or base()
    name, _ = split_reference(name)
    path = run_path(where, name)
    if not path.is_dir():
        names = [run.name for run in list_runs(root=where)]
        raise RunNotFoundError(f"There is no run {name!r} in {where}. {nearest(name, names)}.")
    return Run(path)


def list_runs(*, root: Path | None = None) -> list[Run]:
    """Return every run, newest first. A folder without ``run.json`` is not a run (yet).

    Raises:
        StorageError: The root is there and cannot be read.
    """
    where = root or base()
    try:
        paths = [path for path in where.iterdir() if is_name(path.name) and not path.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(error.errno, f"Cannot list the runs in {where}: {error.strerror}.") from error
    dated = []
    for path in paths:
        try:
            found = (path / files.RUN).lstat()
        except OSError:  # no run, or one that this person must not read
            continue
        if stat.S_ISREG(found.st_mode):
            dated.append((Run(path).created, path.name, path))
    return [Run(path) for _, _, path in sorted(dated, reverse=True)]
