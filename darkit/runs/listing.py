"""The list of runs, for commands: a few facts of each run, from the cache where nothing of the run has changed."""

from __future__ import annotations

import os
import stat
import time
import warnings
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from darkit.errors import StorageError
from darkit.runs import files
from darkit.runs.index import FEWEST, Cached, Index, is_settled, signature_of
from darkit.runs.inert import inert
from darkit.runs.lock import is_locked
from darkit.runs.log import last_values
from darkit.runs.names import is_name
from darkit.runs.notes import project_of, read_notes
from darkit.runs.safe import as_dict, finite_number
from darkit.runs.status import CHANGING, UNLOCKED, examine_copy, examine_status

_READ = (files.RUN, files.STATUS, files.NOTES, files.LOG)


@dataclass(frozen=True)
class Listed:
    """One run in a list.

    Attributes:
        name: The run's name.
        state: As in `Status`.
        reason: Why it ended or stalled.
        model: The name of the model's class.
        project: The project that it belongs to, or empty.
        step: The last completed step.
        max_step: The step at which it ends, or None.
        train_loss: The last one in the log, or None.
        val_loss: Likewise.
        created: When it was started first, in Unix seconds, or 0.
        problem: Why its log cannot be read, or empty.
    """

    name: str
    state: str
    reason: str
    model: str
    project: str
    step: int
    max_step: int | None
    train_loss: float | None
    val_loss: float | None
    created: float
    problem: str = ""

    def as_json(self, root: Path) -> dict[str, Any]:
        """Return what ``darkit runs --json`` says of the run in a root."""
        said = {name: value for name, value in vars(self).items() if name != "problem"}
        return {**said, "path": f"{root}/{self.name}"}


_FIELDS = tuple(field.name for field in fields(Listed))
_TYPES = tuple(
    kind if kind in (str, int) else (float, int) if kind is float else (*get_args(kind), int)
    for kind in get_type_hints(Listed).values()
)
_KIND = f"list 2 {' '.join(_FIELDS)}"  # another number when the values of a field change their meaning


def list_facts(root: Path, *, copied: bool = False, seen: float | None = None) -> list[Listed]:
    """Return the facts of all runs, newest first; warn of logs that cannot be read.

    Args:
        root: The folder of the runs.
        copied: Whether they are copies of runs elsewhere, whose processes and locks cannot be seen here.
        seen: When the copies were last up to date, in Unix seconds.

    Raises:
        StorageError: The root exists and cannot be read.
    """
    names = list(run_names(root))
    index = Index(root, _KIND) if len(names) >= FEWEST else None
    known = index.load() if index else {}
    changed: Cached = {}
    found = []
    for name in names:
        began = time.time()
        signature = signature_of(f"{root}/{name}", _READ)
        listed = _from_cache(root, name, signature, known[name]) if name in known else None
        if listed is None:
            if not _is_run(root / name):
                continue
            listed, lasts = _read(root / name, copied=copied, seen=seen)
            if index and lasts != CHANGING and is_settled(signature, began):
                changed[name] = (signature, [lasts == UNLOCKED, *astuple(listed)[1:]])
        found.append(listed)
    if index:
        index.store(changed, known.keys() - names)
    for listed in found:
        if listed.problem:
            warnings.warn(inert(listed.problem), stacklevel=2)
    return sorted(found, key=lambda one: (one.created, one.name), reverse=True)


def run_names(root: Path) -> Iterator[str]:
    """Return the names of the folders that may be runs.

    Raises:
        StorageError: The root exists and cannot be read.
    """
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if is_name(entry.name) and not entry.is_symlink():
                    yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(error.errno, f"Cannot list the runs in {root}: {error.strerror}.") from error


def facts_of(folder: Path) -> Listed:
    """Read the facts of one run. A log that cannot be read is a problem in them."""
    return _read(folder)[0]


def _read(folder: Path, *, copied: bool = False, seen: float | None = None) -> tuple[Listed, str]:
    """Return the facts of one run, and how long they stay true while no file changes, as `examine_status`."""
    info = files.read_json(folder / files.RUN)
    status, lasts = examine_copy(folder, seen) if copied else examine_status(folder)
    try:
        last, problem = last_values(folder / files.LOG), ""
    except StorageError as error:
        last, problem = {}, str(error)
    path = as_dict(info.get("model")).get("class")
    listed = Listed(
        name=folder.name,
        state=status.state,
        reason=status.reason,
        model=path.rpartition(".")[2] if isinstance(path, str) else "",
        project=project_of(info, read_notes(folder)),
        step=status.step,
        max_step=status.max_step,
        train_loss=_number(last.get("train_loss")),
        val_loss=_number(last.get("val_loss")),
        created=finite_number(info.get("created")) or 0.0,
        problem=problem,
    )
    return listed, lasts


def _from_cache(root: Path, name: str, signature: bytes, known: tuple[bytes, Any]) -> Listed | None:
    """Return the facts in the cache if they are still true."""
    taken, values = known
    if taken != signature or not isinstance(values, list) or len(values) != len(_FIELDS):
        return None
    unlocked, *facts = values
    if not all(map(isinstance, facts, _TYPES[1:])):
        return None
    if unlocked and is_locked(root / name):  # somebody resumes it
        return None
    return Listed(name, *facts)


def _is_run(folder: Path) -> bool:
    """Return whether a folder has a ``run.json``; without one it is no run yet, or not readable for this person."""
    try:
        return stat.S_ISREG((folder / files.RUN).lstat().st_mode)
    except OSError:
        return False


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
