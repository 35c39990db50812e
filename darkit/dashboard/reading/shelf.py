"""The runs of one root, followed at little cost: most runs have ended and never change again.

A look at the root reads what is new, what runs, and what a reader just changed. Of the runs that have ended it checks a
part of the folders, which change with every file that is written beside and renamed as darkit does, and a smaller part
of all their files, for what is edited in place. So a look costs about the same in a root of ten thousand runs as in
one of three thousand, and a change of an ended run is shown a few looks later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.entries import KIND, Entry, entry_of, from_cache, to_cache
from darkit.dashboard.reading.facts import WATCHED, Facts, read_facts
from darkit.dashboard.reading.tail import LogTail, Table, refresh_together
from darkit.runs import files
from darkit.runs.index import FEWEST, Cached, Index, is_settled, signature_of
from darkit.runs.roots import Root, address_of
from darkit.runs.status import ALIVE, Status

FOLDERS = 2_500  # folders of ended runs that one look checks
WHOLE = 250  # ended runs of which one look checks all files
MOST_ROWS = 50_000
PATIENCE = 4.0  # seconds after which a look leaves new runs to the next one
_TOGETHER = 50  # runs read at a time
_SUSPECT = 5.0  # seconds during which every look checks a run that a reader may be changing
_RECENT = 2.0  # seconds in which a folder can change twice without another time
_FILES = (*WATCHED, files.LOG)
_OF_FOLDER = slice(0, len(signature_of("", ())))  # the folder's part of a signature


@dataclass
class _Known:
    entry: Entry
    signature: bytes
    changes: bool  # whether it can change while its files stay as they are


class Shelf:
    """The runs of one root.

    Args:
        root: The root.
        cache: Keeps the logs of runs that are running.
        status_of: Reads the status of a run in this root.
    """

    def __init__(self, root: Root, cache: LogCache, status_of: Callable[[Path], Status]) -> None:
        self.root = root
        self.left_out = 0
        self._cache = cache
        self._status_of = status_of
        self._index = Index(root.path, KIND)
        self._known: dict[str, _Known] = {}
        self._names: Sequence[str] = ()
        self._scanned: tuple[float, tuple[int, int]] | None = None
        self._cached: Cached | None = None
        self._suspects: dict[str, float] = {}
        self._unsaved: set[str] = set()
        self._folders = self._files = 0  # where the next look goes on

    @property
    def entries(self) -> Iterator[Entry]:
        """The runs at the last look."""
        return (known.entry for known in self._known.values())

    @property
    def waiting(self) -> int:
        """How many runs are left to the next look."""
        return len(self._names) - len(self._known)

    def suspect(self, name: str) -> None:
        """Check a run at every look for some seconds, because a reader may be changing it."""
        self._suspects[name] = time.monotonic() + _SUSPECT

    def look(self, version: int) -> tuple[bool, bool]:
        """Look at the root; entries that changed get this version.

        Returns:
            Whether runs came or went, and whether any entry changed.
        """
        if not self._scan():
            return False, False
        new = [name for name in self._names if name not in self._known]
        gone = self._known.keys() - set(self._names) if len(self._known) + len(new) > len(self._names) else set()
        for name in gone:
            del self._known[name]
        self._unsaved -= gone
        came, stored = self._meet(new, version)
        changed, again = self._review(version)
        if len(self._names) >= FEWEST:
            self._index.store({**stored, **again}, gone)
        return bool(came or gone), bool(came or gone or changed)

    def _scan(self) -> bool:
        """List the folders, unless the root is certainly as it was; return whether the root can be looked at."""
        try:
            state = os.stat(self.root.path)  # noqa: PTH116 - as text, it is faster
            now = (state.st_mtime_ns, state.st_ino)
            if self._scanned is not None and self._scanned[1] == now and self._scanned[0] > now[0] / 1e9 + _RECENT:
                return True
            began = time.time()
            with os.scandir(self.root.path) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".") and _may_be_run(entry)]
        except OSError:
            self._scanned = None
            self._names = self._names if self.root.label else ()
            return not self.root.label  # of another home, which is not reachable now, the last state stays
        self._scanned = (began, now)
        self._names, self.left_out = names[:MOST_ROWS], max(0, len(names) - MOST_ROWS)
        return True

    def _meet(self, new: Sequence[str], version: int) -> tuple[bool, Cached]:
        """Read runs that were not there at the last look; return whether any was, and what to cache."""
        if len(new) >= FEWEST and self._cached is None:
            self._cached = self._index.load()
        deadline = time.monotonic() + PATIENCE
        unknown = [name for name in new if not self._recall(name, version)]
        stored: Cached = {}
        for start in range(0, len(unknown), _TOGETHER):
            stored |= self._read(unknown[start : start + _TOGETHER], version)
            if time.monotonic() > deadline:
                break
        if not self.waiting:
            self._cached = None  # its values are in the entries now
        return bool(new), stored

    def _recall(self, name: str, version: int) -> bool:
        """Take a run from the cache if it is there, and nothing has changed since."""
        taken, value = (self._cached or {}).pop(name, (b"", None))
        if not taken or taken != signature_of(f"{self.root.path}/{name}", _FILES):
            return False
        entry = from_cache(value, self.root.path / name, address_of(self.root.label, name), version)
        if entry is not None:
            self._known[name] = _Known(entry, taken, changes=False)
        return entry is not None

    def _review(self, version: int) -> tuple[bool, Cached]:
        """Look at known runs that may have changed; return whether any did, and what to cache."""
        now = time.monotonic()
        self._suspects = {name: until for name, until in self._suspects.items() if until > now and name in self._known}
        due = {name for name, known in self._known.items() if known.changes} | self._suspects.keys()
        settled = [name for name in self._unsaved if is_settled(self._known[name].signature, time.time())]
        due |= set(settled[:_TOGETHER])
        names = self._names
        self._folders, some = _next(names, self._folders, FOLDERS)
        for name in some:
            known = self._known.get(name)
            if known and signature_of(f"{self.root.path}/{name}", ()) != known.signature[_OF_FOLDER]:
                due.add(name)
        self._files, some = _next(names, self._files, WHOLE)
        due.update(name for name in some if name in self._known)
        again = [name for name in due if self._may_have_changed(name)]
        before = {name: self._known[name].entry for name in again}
        stored: Cached = {}
        for start in range(0, len(again), _TOGETHER):
            stored |= self._read(again[start : start + _TOGETHER], version)
        return any(self._known[name].entry is not entry for name, entry in before.items()), stored

    def _may_have_changed(self, name: str) -> bool:
        known = self._known[name]
        changed = known.signature != signature_of(f"{self.root.path}/{name}", _FILES)
        return changed or known.changes or name in self._unsaved

    def _read(self, some: Sequence[str], version: int) -> Cached:
        """Read runs with their logs; return what to cache of them."""
        began = time.time()
        signatures = [signature_of(f"{self.root.path}/{name}", _FILES) for name in some]
        all_facts = [read_facts(self.root.path / name, self._status_of, self.root.label) for name in some]
        tables = self._logs(all_facts)
        stored: Cached = {}
        for name, signature, facts in zip(some, signatures, all_facts, strict=True):
            entry = entry_of(facts, tables.get(facts.folder), version)
            known = self._known.get(name)
            if known is not None and replace(known.entry, version=version) == entry:
                entry = known.entry
            self._known[name] = _Known(entry, signature, changes=facts.status.state in ALIVE)
            self._unsaved.discard(name)
            if facts.settled and is_settled(signature, began):
                stored[name] = (signature, to_cache(entry))
            elif facts.settled:
                self._unsaved.add(name)
        return stored

    def _logs(self, all_facts: Sequence[Facts]) -> dict[Path, Table]:
        """Return the logs of runs. Those of ended runs are not kept: their rows say all that the table shows."""
        logged = [facts for facts in all_facts if os.path.lexists(f"{facts.folder}/{files.LOG}")]
        running = [facts.folder for facts in logged if facts.status.state in ALIVE]
        tables = dict(zip(running, self._cache.read_many(folder / files.LOG for folder in running), strict=True))
        ended = {facts.folder: LogTail(facts.folder / files.LOG) for facts in logged if facts.folder not in tables}
        refresh_together(list(ended.values()))
        return tables | {folder: tail.table() for folder, tail in ended.items()}


def _may_be_run(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() or entry.is_dir(follow_symlinks=False)


def _next(names: Sequence[str], first: int, count: int) -> tuple[int, Sequence[str]]:
    """Return where to go on, and the next names in turn."""
    if len(names) <= count:
        return 0, names
    first %= len(names)
    some = names[first : first + count]
    return first + len(some), some
