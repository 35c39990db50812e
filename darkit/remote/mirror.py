"""A copy of the small files of a home elsewhere, brought up to date in passes.

A run appears when all its small files are there; each of them is replaced as a whole. Logs grow by what was appended,
up to the last complete line. Whatever breaks off leaves the last state.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from darkit.remote.store import Item, Store
from darkit.runs import files
from darkit.runs.names import is_name
from darkit.runs.safe import LONGEST_JSON
from darkit.runs.status import ALIVE
from darkit.runs.usage import size_of

logger = logging.getLogger(__name__)
BASE = "base"
SMALL = (files.STATUS, files.RUN, files.MODEL_CONFIG, files.TRAINER_CONFIG, files.NOTES, files.GRAPH)
LOGS = (files.LOG, files.SYSTEM_LOG)
MOST_RUNS = 5_000
LONGEST_LOG = 256 * 2**20  # bytes
LARGEST = 4 * 2**30  # bytes of all copies of a home
_BLOCK = 2**20  # bytes that are read at once
_OVERLAP = 1024  # bytes before the end of a copied log that must still be the same
_REST = 60.0  # seconds after which an ended run is looked at again though nothing tells that it changed
_OLD = 3600.0  # seconds since a folder changed after which it is at rest, whatever two clocks differ by
_COARSE = 2.0  # seconds; times of files may count whole seconds


@dataclass
class _File:
    """What is known of one small file: the stamp of the copy, since when, and whether it was read after that again."""

    stamp: str
    since: float
    confirmed: bool = False


@dataclass
class _Run:
    """What is known of one run."""

    stamp: str = ""  # of its folder
    settled: bool = False  # has ended, and was looked at again since its folder changed last
    looked: float = 0.0
    files: dict[str, _File] = field(default_factory=dict)
    doubtful: dict[str, bytes] = field(default_factory=dict)  # small files that are no JSON


class _NoSpaceError(Exception):
    """A small file does not fit into what the copies of a home may take."""


class Mirror:
    """The copy of one home.

    Args:
        folder: Where the copy is; its ``base`` is a root of runs.
        path: The home's folder in the store.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self.base = folder / BASE
        self._new = folder / "new"
        self._path = posixpath.join(path, BASE)
        self._runs: dict[str, _Run] = {}
        self._seen: dict[str, float] = {}
        self._size: int | None = None
        self._at_rest = folder / "at_rest.json"  # so that the next start need not look into every run again
        for name, stamp in files.read_json(self._at_rest).items():
            if is_name(name) and isinstance(stamp, str) and (self.base / name).is_dir():
                self._runs[name] = _Run(stamp, settled=True)
        self.problem = ""  # what is left out, or empty

    def seen(self, run: Path) -> float | None:
        """Return when the copy of a run was last up to date, on the monotonic clock."""
        return self._seen.get(run.name)

    def bring_up_to_date(self, store: Store, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """Make one pass over all runs.

        Args:
            store: Where the home is.
            waiting: Entered while an answer is waited for.

        Raises:
            Exception: What the store raises. The copies of the runs before are up to date, the others as they were.
        """
        store = _Asking(store, waiting)
        self.base.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._new, ignore_errors=True)
        if self._size is None:
            self._size = size_of(self.base)
        left_out: list[str] = []
        found = [item for item in store.list(self._path) if item.folder]
        items = {item.name: item for item in found if is_name(item.name)}
        chosen = self._choose(items.values())
        if len(items) > len(chosen):
            left_out.append(f"{len(items) - len(chosen)} runs beyond {MOST_RUNS}")
        if len(found) > len(items):
            left_out.append(f"{len(found) - len(items)} folders whose names are no run names")
        for name in {path.name for path in self.base.iterdir()} - items.keys():
            self._forget(name)
        for item in chosen:
            try:
                left_out += self._update(store, item)
            except FileNotFoundError:  # it was deleted meanwhile
                continue
            except PermissionError:
                left_out.append(f"{item.name}, which must not be read")
            except _NoSpaceError:
                left_out.append(f"changes of {item.name}, for which {LARGEST / 2**30:g} GiB are too few")
        self._remember()
        self.problem = "Left out: " + ", ".join(dict.fromkeys(left_out)) if left_out else ""

    def _choose(self, items: Iterable[Item]) -> list[Item]:
        """Return the runs to copy: those that are copied already, then the newest."""
        ordered = sorted(items, key=lambda item: item.stamp, reverse=True)
        ordered.sort(key=lambda item: not (self.base / item.name).is_dir())
        return ordered[:MOST_RUNS]

    def _update(self, store: Store, item: Item) -> list[str]:
        """Bring one run up to date; return what is left out of it."""
        known = self._runs.setdefault(item.name, _Run())
        now = time.monotonic()
        same = bool(item.stamp) and item.stamp == known.stamp
        if known.settled and (same or (not item.stamp and now - known.looked < _REST)):
            self._seen[item.name] = now
            return []
        listed = {one.name: one for one in store.list(posixpath.join(self._path, item.name)) if one.regular}
        if files.RUN not in listed:  # not a run yet
            self._forget(item.name)
            return []
        target = self.base / item.name
        if target.is_dir():
            complete, left_out = self._copy(store, target, known, listed)
        else:
            before, folder = self._size, self._new / item.name
            folder.mkdir(parents=True, exist_ok=True)
            try:
                complete, left_out = self._copy(store, folder, known, listed)
                if not complete:  # it changed meanwhile, and comes with the next pass
                    return []
                folder.rename(target)
            finally:
                if folder.exists():
                    self._size = before
                    shutil.rmtree(folder, ignore_errors=True)
        alive = files.read_json(target / files.STATUS).get("state") in ALIVE
        aged = now - known.looked >= _COARSE
        old = item.modified is not None and time.time() - item.modified > _OLD
        known.settled = complete and not alive and (old or (aged and (same or not item.stamp)))
        known.stamp, known.looked = item.stamp, now
        self._seen[item.name] = now
        return left_out

    def _copy(self, store: Store, folder: Path, known: _Run, listed: dict[str, Item]) -> tuple[bool, list[str]]:
        """Copy what changed of one run; return whether its small files are the present ones, and what is left out."""
        present = [self._copy_small(store, folder, known, name, listed.get(name)) for name in SMALL]
        left_out = [
            f"the end of {name} of {folder.name}"
            for name in LOGS
            if name in listed and not self._extend(store, folder, known, listed[name])
        ]
        return all(present), left_out

    def _copy_small(self, store: Store, folder: Path, known: _Run, name: str, item: Item | None) -> bool:
        """Copy one small file as a whole; return whether the copy is the present file."""
        target = folder / name
        if item is None:
            self._count(-_size(target))
            target.unlink(missing_ok=True)
            known.files.pop(name, None)
            return True
        now, stamp = time.monotonic(), f"{item.stamp} {item.size}"
        seen = known.files.get(name)
        if seen is not None and seen.stamp == stamp and seen.confirmed and target.exists():
            return True
        if item.size > LONGEST_JSON:
            logger.warning("%s of run %r is too large to be copied.", name, folder.name)
            return True
        data = store.read(posixpath.join(self._path, folder.name, name), 0, item.size + 1) if item.size else b""
        if not _is_object(data) and known.doubtful.get(name) != data:  # it may be half written; or it is so for good
            known.doubtful[name] = data
            return False
        known.doubtful.pop(name, None)
        more = len(data) - _size(target)
        if more > 0 and not self._has_space(more):
            raise _NoSpaceError
        self._count(more)
        _place(target, data)
        if seen is None or seen.stamp != stamp:
            known.files[name] = _File(stamp, now)
        elif now - seen.since >= _COARSE:
            seen.confirmed = True
        return True

    def _extend(self, store: Store, folder: Path, known: _Run, item: Item) -> bool:
        """Append to the copy of a log what was appended to it; return whether the copy may hold it all."""
        path, source = folder / item.name, posixpath.join(self._path, folder.name, item.name)
        size, wanted = _size(path), min(item.size, LONGEST_LOG)
        seen = known.files.get(item.name)
        stamp = f"{item.stamp} {item.size}"
        if seen is not None and seen.stamp == stamp and seen.confirmed:
            return item.size <= LONGEST_LOG
        if size > item.size or not self._continues(store, source, path, size):
            return self._replace(store, source, path, wanted) and item.size <= LONGEST_LOG
        while size < wanted:
            if not self._has_space(_BLOCK):
                return False
            data = _whole_lines(store.read(source, size, min(_BLOCK, wanted - size)))
            if not data:
                break
            _append(path, data)
            size += len(data)
            self._count(len(data))
        if seen is None or seen.stamp != stamp:
            known.files[item.name] = _File(stamp, time.monotonic())
        elif time.monotonic() - seen.since >= _COARSE:
            seen.confirmed = True
        return item.size <= LONGEST_LOG

    def _continues(self, store: Store, source: str, path: Path, size: int) -> bool:
        """Return whether a log still has the end that was copied: a resume and a new column rewrite it."""
        overlap = min(size, _OVERLAP)
        if not overlap:
            return True
        with path.open("rb") as file:
            file.seek(size - overlap)
            return store.read(source, size - overlap, overlap) == file.read()

    def _replace(self, store: Store, source: str, path: Path, wanted: int) -> bool:
        """Copy a log anew beside the old copy, and put it into its place."""
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        size = 0
        while size < wanted:
            if not self._has_space(size + _BLOCK):
                beside.unlink(missing_ok=True)
                return False
            data = _whole_lines(store.read(source, size, min(_BLOCK, wanted - size)))
            if not data:
                break
            _append(beside, data)
            size += len(data)
        if not size:
            beside.touch()
        self._count(size - _size(path))
        os.replace(beside, path)
        return True

    def _remember(self) -> None:
        resting = {name: known.stamp for name, known in self._runs.items() if known.settled and known.stamp}
        if resting != files.read_json(self._at_rest):
            _place(self._at_rest, json.dumps(resting).encode())

    def _has_space(self, more: int) -> bool:
        return (self._size or 0) + more <= LARGEST

    def _count(self, more: int) -> None:
        self._size = max(0, (self._size or 0) + more)

    def _forget(self, name: str) -> None:
        """Remove the copy of a run that is no longer there."""
        self._runs.pop(name, None)
        self._seen.pop(name, None)
        folder = self.base / name
        if folder.is_dir():
            self._count(-size_of(folder))
            aside = self._new / f"gone-{os.urandom(6).hex()}"  # no reader sees a part of it
            aside.parent.mkdir(exist_ok=True)
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


class _Asking:
    """A store of which somebody can see that an answer is waited for."""

    def __init__(self, store: Store, waiting: Callable[[], AbstractContextManager[None]]) -> None:
        self._store, self._waiting = store, waiting

    def list(self, path: str) -> list[Item]:
        with self._waiting():
            return self._store.list(path)

    def read(self, path: str, start: int, count: int) -> bytes:
        with self._waiting():
            return self._store.read(path, start, count)

    def close(self) -> None:
        self._store.close()


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _place(path: Path, data: bytes) -> None:
    """Replace a file as a whole. A copy needs no durability: after a crash of the machine it is read again."""
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    os.replace(beside, path)


def _append(path: Path, data: bytes) -> None:
    """Append whole lines with one write where the system takes them at once."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        files.append_block(descriptor, data)
    finally:
        os.close(descriptor)


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
