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


def config_keys(configs: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return every key of flat configs, in order, and whether its values are all numbers."""
    found: dict[str, bool] = {}
    for config in configs:
        for key, value in config.items():
            numeric = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            found[key] = numeric and found.get(key, True)
    return dict(sorted(found.items()))
