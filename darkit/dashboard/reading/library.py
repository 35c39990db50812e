"""All runs of one or more homes, and single ones by their addresses."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.entries import Entry, Metric
from darkit.dashboard.reading.facts import Facts, Signature, read_facts, signature
from darkit.dashboard.reading.series import in_order
from darkit.dashboard.reading.shelf import Shelf
from darkit.dashboard.reading.tail import Table
from darkit.errors import ConfigError, DarkitError, RunNotFoundError
from darkit.runs import files
from darkit.runs.roots import Root, check_roots, find_root
from darkit.runs.status import ALIVE, Status, Watcher

_FRESH = 0.4  # seconds during which one look at the folders serves all requests
_NAMES = ("trainer.name", "trainer.project")  # config values that say which run it is, not how it was trained
_HOUSEKEEPING = re.compile(  # how a run is saved, logged and placed, which is seldom what tells runs apart
    r"trainer\.(tensorboard|console|device|device_num|num_nodes|num_workers|max_step|max_epoch|monitor|mode"
    r"|(eval|save|log)_\w+|keep_\w+|load_best_at_end|raster_samples|\w+_energy|peak_flops)"
)
_MOST_DIFFERING = 12  # keys whose values the table has at hand
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
        # above the numbers of every server before: an open page may still have one of theirs
        self._version = self._membership = time.time_ns() // 1_000_000
        self._looked = 0.0
        self._sorted: list[Entry] = []
        self._keys: tuple[int, dict[str, bool]] = (0, {})
        self._configs: dict[Path, Mapping[str, Any]] = {}
        self._differing: tuple[dict[Path, Mapping[str, Any]], list[str], list[str]] = ({}, [], [])
        self._metrics: tuple[tuple[tuple[Metric, ...], ...], list[tuple[str, bool, bool]]] = ((), [])

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

    def existing(self, addresses: Iterable[str]) -> list[Facts]:
        """Return the small files of the runs that exist."""
        found = []
        for address in addresses:
            with suppress(DarkitError):  # deleted; the page sees that it is missing
                found.append(self.facts(address))
        return found

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

    def is_writable(self, address: str) -> bool:
        """Return whether readers may change the run with this address: it is not in a home that is only read."""
        with suppress(DarkitError):
            return find_root(self.roots, address)[0].writable
        return False

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

    def differing_keys(self) -> list[str]:
        """Return the config keys that tell the runs of the last look apart; see `differing_keys`."""
        return self._find_differing()[0]

    def all_differing_keys(self) -> list[str]:
        """Return every config key in which the runs of the last look differ, or that some lack, but their names."""
        return self._find_differing()[1]

    def _find_differing(self) -> tuple[list[str], list[str]]:
        self.config_keys()
        with self._lock:
            if self._differing[0] is not self._configs:
                found = _differing_values(list(self._configs.values()))
                self._differing = (self._configs, differing_keys(found, len(self._configs)), list(found))
            return self._differing[1:]

    def metrics(self) -> list[tuple[str, bool, bool]]:
        """Return every metric of the runs of the last look.

        Each has its name, whether high or low values of it are better, and whether a run declares it. Those that a run
        declares come first, the others in the order of `in_order`.
        """
        with self._lock:
            kinds = tuple(dict.fromkeys(entry.metrics for entry in self._sorted))
            if self._metrics[0] != kinds:
                self._metrics = (kinds, merged_metrics(kinds))
            return self._metrics[1]

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


def config_keys(configs: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return every key of flat configs, in order, and whether its values are all numbers."""
    found: dict[str, bool] = {}
    for config in configs:
        for key, value in config.items():
            numeric = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            found[key] = numeric and found.get(key, True)
    return dict(sorted(found.items()))


def differing_keys(found: Mapping[str, tuple[int, set[Any]]], runs: int) -> list[str]:
    """Return the keys of flat configs that best tell runs apart, those that most runs have first.

    Of keys that equally many runs have, those with more values come first. After those come how runs are saved, logged
    and placed, then a seed, and last what some runs have and others lack.

    Left out are keys that fewer than half of the runs have, and texts that are another one in each.

    Args:
        found: The keys in which the runs differ, each with how many runs have it and with its values.
        runs: How many runs there are.
    """
    chosen = [
        key
        for key, (count, values) in found.items()
        if 2 * count >= runs and not (len(values) == count > 3 and all(isinstance(value, str) for value in values))
    ]
    return sorted(chosen, key=lambda key: (len(found[key][1]) == 1, _rank(key), -found[key][0], -len(found[key][1])))[
        :_MOST_DIFFERING
    ]


def _rank(key: str) -> int:
    return 2 if key.endswith("seed") else 1 if _HOUSEKEEPING.fullmatch(key) else 0


def _differing_values(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, set[Any]]]:
    """Return the keys in which flat configs differ, or that some lack: how many have it, and its values."""
    found: dict[str, tuple[int, set[Any]]] = {}
    for config in configs:
        for key, value in config.items():
            count, values = found.get(key, (0, set()))
            values.add(value)
            found[key] = (count + 1, values)
    return {
        key: (count, values)
        for key, (count, values) in found.items()
        if (len(values) > 1 or count < len(configs)) and key not in _NAMES
    }


def merged_metrics(kinds: Iterable[Sequence[Metric]]) -> list[tuple[str, bool, bool]]:
    """Merge the metrics of several runs, in their order; each with whether any run ranks it, and declares it."""
    every = [metric for metrics in kinds for metric in metrics]
    ranked = {metric.name for metric in every if metric.ranked}
    declared = dict.fromkeys(metric.name for metric in every if metric.declared)
    others = {metric.name for metric in every} - declared.keys()
    return [(name, name in ranked, name in declared) for name in (*declared, *in_order(others))]
