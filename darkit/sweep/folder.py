"""The folder of a sweep, ``$DARWIN_KIT_HOME/sweeps/<name>/``, and what is written there for people and programs."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.errors import RunLockedError, SweepError, nearest
from darkit.runs import files, seal
from darkit.runs.home import home
from darkit.runs.lock import RunLock
from darkit.runs.names import check_name, is_name
from darkit.runs.safe import UnreadableError, read_object
from darkit.sweep.settings import SweepSettings
from darkit.sweep.space import Dimension, as_records, from_records

DEFINITION = "sweep.json"
JOURNAL = "journal.log"
BEST = "best.json"
TRIALS = "trials.csv"
RUNGS = "rungs.csv"
OUTPUT = "jobs"  # what a run's process said, until it has ended well
_PURPOSE = "sweep"  # of the seal
_MAY_CHANGE = ("trials", "jobs")  # settings with which a sweep continues


@dataclass(frozen=True)
class Definition:
    """What a sweep is: the same definition is the same sweep.

    Attributes:
        name: The sweep's name.
        words: The overrides that all trials share.
        space: The search space.
        settings: Of sampler and pruner; ``jobs`` is the number with which the sweep was begun.
        seeds: Seeds of each configuration; empty without ``seeds=``.
        facts: What the config composed into when the sweep was begun: the objective, its direction, the steps, and
            a digest of the whole.
    """

    name: str
    words: tuple[str, ...]
    space: tuple[Dimension, ...]
    settings: SweepSettings
    seeds: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def direction(self) -> str:
        """Whether a smaller or a larger objective is better: ``min`` or ``max``."""
        return str(self.facts["direction"])

    @property
    def objective(self) -> str:
        """The metric that is compared."""
        return str(self.facts["objective"])

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "name": self.name,
            "words": list(self.words),
            "space": as_records(self.space),
            "settings": self.settings.as_dict(),
            "seeds": list(self.seeds),
            "facts": dict(self.facts),
        }

    def differs_from(self, other: Definition) -> str:
        """Return what differs from another definition such that it is another sweep, or empty text."""
        mine, theirs = self.as_dict(), other.as_dict()
        for values in (mine["settings"], theirs["settings"]):
            for name in _MAY_CHANGE:
                del values[name]
        changed = [f"sweep.{key}" for key, value in mine["settings"].items() if theirs["settings"][key] != value]
        changed += [key for key in ("words", "space", "seeds") if mine[key] != theirs[key]]
        if not changed:  # the same words mean something else where a config file has changed
            both = [key for key in mine["facts"] if key in theirs["facts"]]
            changed = [key for key in both if mine["facts"][key] != theirs["facts"][key]]
        return ", ".join(changed)


class SweepFolder:
    """The folder of one sweep.

    Args:
        name: The sweep's name.

    Raises:
        NameInvalidError: The name cannot be a folder's.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.path = sweeps_root() / name

    @property
    def exists(self) -> bool:
        """Whether there is such a sweep."""
        return (self.path / DEFINITION).is_file()

    def read(self) -> Definition:
        """Return the recorded definition.

        Raises:
            SweepError: There is no such sweep, or this home did not record it as it is.
        """
        if not self.exists:
            raise SweepError(
                f"There is no sweep {self.name!r} in {sweeps_root()}. {nearest(self.name, list_sweeps())}."
            )
        try:
            content = read_object(self.path / DEFINITION)
            definition = _definition(content["definition"])
        except (UnreadableError, KeyError, TypeError, ValueError) as error:
            raise SweepError(f"The sweep {self.name!r} cannot be read: {self.path / DEFINITION} is damaged.") from error
        if not seal.holds(_canonical(definition), content.get("seal"), purpose=_PURPOSE):
            raise SweepError(
                f"The sweep {self.name!r} was not recorded by this darkit home, or its {DEFINITION} was changed: its "
                "settings are not trusted. Give the whole command with another name=."
            )
        return definition

    def write(self, definition: Definition) -> None:
        """Record the definition. Raises `StorageError`."""
        text = _canonical(definition)
        content = {"definition": definition.as_dict(), "seal": seal.make(text, purpose=_PURPOSE)}
        files.write_json(self.path / DEFINITION, content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sweep alone.

        Raises:
            SweepError: Another process runs it.
            StorageError: The folder cannot be made or locked.
        """
        with files.storage_errors(f"make the folder {self.path}"):
            if self.path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = RunLock(self.path)
        except RunLockedError as error:
            raise SweepError(f"The sweep {self.name!r} is running already. Wait until it ends.") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def removed_if_unused(self) -> Iterator[list[Callable[[], bool]]]:
        """Remove what the block has written if an error ends it before the first run; the lock must be held.

        Only a sweep that is new is removed. One that existed has results, also if its runs are not there at the moment.

        Yields:
            A list for functions that tell whether a run has begun.
        """
        is_new = all(path.name == files.LOCK for path in self.path.iterdir())
        questions: list[Callable[[], bool]] = []
        try:
            yield questions
        except Exception:
            if is_new and not any(has_begun() for has_begun in questions):
                shutil.rmtree(self.path, ignore_errors=True)  # what is reported is the error
            raise

    def write_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table as CSV, atomically. Raises `StorageError`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        files.write_text(self.path / name, text.getvalue())


def sweeps_root() -> Path:
    """Return the folder of all sweeps."""
    return home() / "sweeps"


def list_sweeps() -> list[str]:
    """Return the names of the sweeps, sorted."""
    try:
        found = [path for path in sweeps_root().iterdir() if is_name(path.name)]
    except OSError:
        return []
    return sorted(path.name for path in found if (path / DEFINITION).is_file())


def _canonical(definition: Definition) -> str:
    return json.dumps(definition.as_dict(), sort_keys=True)


def _definition(content: Mapping[str, Any]) -> Definition:
    return Definition(
        name=check_name(content["name"]),
        words=tuple(str(word) for word in content["words"]),
        space=tuple(from_records(content["space"])),
        settings=SweepSettings(**content["settings"]),
        seeds=tuple(int(seed) for seed in content["seeds"]),
        facts=content["facts"],
    )
