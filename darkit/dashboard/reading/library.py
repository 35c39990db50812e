"""All runs of one or more homes: listed at every look, read again only if something changed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.facts import Facts, Signature, read_facts, readable, signature, stamp
from darkit.dashboard.reading.tail import Table
from darkit.errors import ConfigError, RunNotFoundError
from darkit.runs import files
from darkit.runs.best import best_mode
from darkit.runs.roots import Root, check_roots, find_root
from darkit.runs.run import is_pair
from darkit.runs.safe import finite_number as number
from darkit.runs.status import ALIVE, Status, Watcher

_FRESH = 0.4  # seconds during which one look at the folder serves all requests
_RATE_ROWS = 200
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Entry:
    """One run as the table shows it.

    Attributes:
        facts: Its small files.
        row: What is sent to the page, without config values.
        version: The look at which it last changed.
    """

    facts: Facts
    row: dict[str, Any]
    version: int


class Library:
    """The runs below one or more roots.

    Every run has an address (`darkit.runs.roots`), which is its `Facts.name`: its name in the first root,
    ``label/name`` in another one. All methods that take a run take its address.

    Args:
        roots: The folder of the runs, or several with their labels; none of them needs to exist yet.
        cache: Keeps their logs.

    Raises:
        ConfigError: Addresses would be ambiguous.
    """

    def __init__(self, roots: Path | Sequence[Root], cache: LogCache) -> None:
        self.roots = check_roots([Root(roots)] if isinstance(roots, Path) else roots)
        self.cache = cache
        self._lock = threading.Lock()
        self._facts: dict[Path, tuple[Signature, Facts]] = {}
        self._entries: dict[Path, tuple[tuple[Any, ...], Entry]] = {}
        self._version = 0
        self._looked = 0.0
        self._watcher = Watcher()  # notices that a run on another host died

    @property
    def root(self) -> Path:
        """The folder of the reader's own runs."""
        return self.roots[0].path

    def facts(self, address: str) -> Facts:
        """Return the small files of one run.

        Raises:
            NameInvalidError: The address is invalid, or the folder is a link.
            RunNotFoundError: No run has this address.
        """
        return self._read(*self._find(address))

    def writable_folder(self, address: str) -> Path:
        """Return the folder of a run that a reader changes: its notes, a request to stop, its deletion.

        Raises:
            NameInvalidError: The address is invalid, or the folder is a link.
            RunNotFoundError: No run has this address.
            ConfigError: Its home is only read.
        """
        root, folder = self._find(address)
        if not root.writable:
            raise ConfigError(f"The run {address!r} cannot be changed here: the home {root.label!r} is only read.")
        return folder

    def logs(self, all_facts: Iterable[Facts], source: str = "log") -> list[Table]:
        """Return the logs of runs, or with ``system`` those of machine usage."""
        name = files.LOG if source == "log" else files.SYSTEM_LOG
        return self.cache.read_many(facts.folder / name for facts in all_facts)

    def entries(self) -> tuple[int, list[Entry]]:
        """Look at the root and return the number of this look and all runs, newest first."""
        with self._lock:
            if time.monotonic() - self._looked > _FRESH:
                self._look()
                self._looked = time.monotonic()
            found = [entry for _, entry in self._entries.values()]
            return self._version, sorted(found, key=lambda entry: (-_began(entry.facts), entry.facts.name))

    def _find(self, address: str) -> tuple[Root, Path]:
        root, folder = find_root(self.roots, address)
        if not folder.is_dir():
            raise RunNotFoundError(f"No run is named {folder.name!r} in {root.path}.")
        return root, folder

    def _look(self) -> None:
        listed = [(root, _folders(root.path)) for root in self.roots]
        places = [(root, folder) for root, folders in listed for folder in folders or ()]
        lost = {root.path for root, folders in listed if folders is None and root.label}  # their last state is shown
        all_facts = [self._read(root, folder) for root, folder in places[:MOST_ROWS]]
        logs = [(facts, stamp(f"{os.fspath(facts.folder)}/{files.LOG}")) for facts in all_facts]
        changed = [
            (facts, log)
            for facts, log in logs
            if (known := self._entries.get(facts.folder)) is None
            or known[0] != (facts.status, facts.notes, log)
            or known[1].facts is not facts
        ]
        gone = self._entries.keys() - {facts.folder for facts in all_facts}
        gone = {folder for folder in gone if folder.parent not in lost}
        if changed or gone:
            self._version += 1
        for folder in gone:
            del self._entries[folder]
        logged = [facts for facts, log in changed if log is not None]
        tables = dict(zip((facts.folder for facts in logged), self.logs(logged), strict=True))
        for facts, log in changed:
            row = summary(facts, tables.get(facts.folder))
            self._entries[facts.folder] = ((facts.status, facts.notes, log), Entry(facts, row, self._version))

    def _read(self, root: Root, folder: Path) -> Facts:
        now = signature(folder)
        known = self._facts.get(folder)
        if known is not None and known[0] == now and known[1].status.state not in ALIVE:
            return known[1]
        status_of: Callable[[Path], Status] = self._watcher.read
        if root.seen is not None:
            status_of = partial(self._watcher.read_copy, seen=root.seen(folder))
        facts = read_facts(folder, status_of, root.label)
        if known is not None and known[1] == facts:
            facts = known[1]
        self._facts[folder] = (now, facts)
        return facts


def summary(facts: Facts, table: Table | None) -> dict[str, Any]:
    """Return the row of one run in the table of runs; times in Unix seconds, durations in seconds."""
    status = facts.status
    series = series_values(facts, table) if table is not None else {}
    problem = facts.problem or (table.problem if table is not None else "")
    rate, eta = pace(facts, table)
    ended = status.heartbeat
    config_device = facts.trainer.get("device")
    return {
        "name": facts.name,
        "opens": facts.opens,
        "state": facts.state,
        "problem": problem,
        "reason": readable(status.reason)[:300],
        "model": readable(facts.model),
        "step": status.step,
        "max_step": status.max_step,
        "progress": min(1.0, status.step / status.max_step) if status.max_step and status.step >= 0 else None,
        "eta": eta,
        "rate": rate,
        "duration": ended - status.started if 0 < status.started <= ended else None,
        "started": _began(facts) or None,
        "device": readable(config_device)[:60] if isinstance(config_device, str) else "",
        "tags": [readable(tag) for tag in facts.notes.tags],
        "note": readable(facts.notes.note)[:300],
        "archived": facts.notes.archived,
        "series": series,
    }


def series_values(facts: Facts, table: Table) -> dict[str, list[float | None]]:
    """The last and the best finite value of each series of a run."""
    values: dict[str, list[float | None]] = {}
    for name, columns in usable_series(facts.series, table).items():
        column = table.column(columns[1])
        if column is None:
            continue
        finite = column[np.isfinite(column)]
        if len(finite):
            best = finite.max() if best_mode(facts.trainer, name, columns[1]) == "max" else finite.min()
            values[readable(name)] = [float(finite[-1]), float(best)]
    return values


def pace(facts: Facts, table: Table | None) -> tuple[float | None, float | None]:
    """Return steps per second, and the seconds left of a running run at that rate; None if unknown."""
    status = facts.status
    rate = steps_per_second(table, since=status.started) if table is not None else None
    left = status.max_step - status.step if status.max_step else None
    return rate, left / rate if facts.state == "running" and left is not None and left >= 0 and rate else None


def steps_per_second(table: Table, *, since: float) -> float | None:
    """Compute the rate over the last rows of a log, or None where its clock or steps do not advance.

    Rows from before ``since``, in Unix seconds, are left out: the pause before a resume is not training.
    """
    first = max(0, table.rows - _RATE_ROWS)
    clock, step = table.column("time", first), table.column("step", first)
    if clock is None or step is None:
        return None
    current = clock >= since
    clock, step = clock[current], step[current]
    if len(clock) < 2:
        return None
    seconds = number(float(clock[-1] - clock[0]))
    steps = number(float(step[-1] - step[0]))
    return steps / seconds if seconds and steps and seconds > 0 and steps > 0 else None


def _began(facts: Facts) -> float:
    return facts.status.started or number(facts.info.get("created")) or 0.0


def _folders(root: Path) -> Sequence[Path] | None:
    """Return the folders in a root, or None where it cannot be read."""
    try:
        with os.scandir(root) as entries:
            found = [
                root / entry.name
                for entry in entries
                if not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir(follow_symlinks=False))
            ]
    except OSError:
        return None
    return found


def usable_series(series: Mapping[str, Any], table: Table) -> dict[str, list[str]]:
    """Return the well-formed series of a run; without any, one for each column with numbers."""
    found = {readable(name): list(columns) for name, columns in series.items() if is_pair(columns)}
    if found or not table.columns:
        return found
    x = "step" if "step" in table.columns else table.columns[0]
    return {
        column: [x, column]
        for column in table.columns
        if column not in (x, "epoch", "time") and _has_numbers(table, column)
    }


def _has_numbers(table: Table, column: str) -> bool:
    values = table.column(column)
    return values is not None and bool(np.isfinite(values).any())
