"""All runs of one or more homes, and single ones by their addresses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.entries import Entry
from darkit.dashboard.reading.facts import Facts, Signature, read_facts, signature
from darkit.dashboard.reading.shelf import Shelf
from darkit.dashboard.reading.tail import Table
from darkit.errors import ConfigError, RunNotFoundError
from darkit.runs import files
from darkit.runs.roots import Root, check_roots, find_root
from darkit.runs.status import ALIVE, Status, Watcher

_FRESH = 0.4  # seconds during which one look at the folders serves all requests
_MOST_FACTS = 1_000  # runs whose small files are kept in memory


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
        self._watcher = Watcher()  # notices that a run on another host died
        self._shelves = {root.label: Shelf(root, cache, self._status_of(root)) for root in self.roots}
        self._lock = threading.Lock()
        self._facts: dict[Path, tuple[Signature, Facts]] = {}
        self._version = self._membership = 0
        self._looked = 0.0
        self._sorted: list[Entry] = []
        self._keys: tuple[int, dict[str, bool]] = (0, {})
        self._configs: dict[Path, Mapping[str, Any]] = {}

    @property
    def root(self) -> Path:
        """The folder of the reader's own runs."""
        return self.roots[0].path

    @property
    def left_out(self) -> int:
        """How many folders are too many to be shown."""
        return sum(shelf.left_out for shelf in self._shelves.values())

    @property
    def waiting(self) -> int:
        """How many runs the next look will read."""
        return sum(shelf.waiting for shelf in self._shelves.values())

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
        self._shelves[root.label].suspect(folder.name)
        return folder

    def logs(self, all_facts: Iterable[Facts], source: str = "log") -> list[Table]:
        """Return the logs of runs, or with ``system`` those of machine usage."""
        name = files.LOG if source == "log" else files.SYSTEM_LOG
        return self.cache.read_many(facts.folder / name for facts in all_facts)

    def entries(self) -> tuple[int, list[Entry]]:
        """Look at the roots and return the number of the last look with a change and all runs, newest first."""
        version, _, entries = self.changes()
        return version, entries

    def changes(self) -> tuple[int, int, list[Entry]]:
        """Look at the roots as `entries` does.

        Returns:
            The number of the last look with a change, of the last one at which runs came or went, and all runs.
        """
        with self._lock:
            if time.monotonic() - self._looked > _FRESH:
                self._look()
                self._looked = time.monotonic()
            return self._version, self._membership, self._sorted

    def config_keys(self) -> dict[str, bool]:
        """Return every config key of the runs of the last look, in order, and whether its values are all numbers."""
        with self._lock:
            version, entries = self._version, self._sorted
            if self._keys[0] != version:
                configs = {entry.folder: entry.config for entry in entries}
                if configs != self._configs:
                    self._configs, self._keys = configs, (version, config_keys(configs.values()))
                self._keys = (version, self._keys[1])
            return self._keys[1]

    def _look(self) -> None:
        version = self._version + 1
        looks = [shelf.look(version) for shelf in self._shelves.values()]
        if any(moved for moved, _ in looks):
            self._membership = version
        if any(changed for _, changed in looks):
            self._version = version
            found = [entry for shelf in self._shelves.values() for entry in shelf.entries]
            self._sorted = sorted(found, key=lambda entry: (-entry.began, entry.name))

    def _find(self, address: str) -> tuple[Root, Path]:
        root, folder = find_root(self.roots, address)
        if not folder.is_dir():
            raise RunNotFoundError(f"No run is named {folder.name!r} in {root.path}.")
        return root, folder

    def _status_of(self, root: Root) -> Callable[[Path], Status]:
        """Return what reads the status of runs in a root."""
        seen = root.seen
        if seen is None:
            return self._watcher.read
        return lambda folder: self._watcher.read_copy(folder, seen(folder))

    def _read(self, root: Root, folder: Path) -> Facts:
        now = signature(folder)
        known = self._facts.get(folder)
        if known is not None and known[0] == now and known[1].status.state not in ALIVE:
            return known[1]
        facts = read_facts(folder, self._status_of(root), root.label)
        if known is not None and known[1] == facts:
            facts = known[1]
        self._facts[folder] = (now, facts)
        while len(self._facts) > _MOST_FACTS:
            self._facts.pop(next(iter(self._facts)), None)
        return facts


<<<<<<< HEAD
def config_keys(configs: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return every key of flat configs, in order, and whether its values are all numbers."""
    found: dict[str, bool] = {}
    for config in configs:
        for key, value in config.items():
            numeric = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            found[key] = numeric and found.get(key, True)
    return dict(sorted(found.items()))
=======
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
        "group": facts.group,
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
>>>>>>> d7d130c (Sweeps: darkit sweep with Optuna, trials that are paused and promoted exactly, seeds= as a group; Hydra's jobs return their objective and fail aloud)
