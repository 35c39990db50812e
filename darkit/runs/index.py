"""A cache of what was read from the runs of a root, so that a list of many runs does not open their files again.

The cache is never the truth. An entry counts only while the *signature* of its run is unchanged: inode, size and times
of its folder and of the files that were read. A cache that is missing, locked, damaged, of another version or on a disk
that refuses is no cache: the runs are read, as they are in a root of few runs.

The file lies in the user's cache folder and not in the home, which may be read-only or received from others. It is made
for one root and one host, on which a run's lock can be seen. Values are JSON, and readers check their types.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import sqlite3
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

logger = logging.getLogger(__name__)

FEWEST = 100  # runs; fewer are read as quickly without a cache
_FOLDER = "runs"
_VERSION = 1
_PATIENCE = 0.5  # seconds to wait for another process that writes
_RECENT = 2 * 10**9  # nanoseconds in which a file can change twice without another time
_UNUSED = 90 * 86_400  # seconds after which the cache of another root is removed
_MISSING = (0, 0, 0, 0)
_ELSEWHERE = (  # errors that say nothing about the content
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM),
)

Cached = dict[str, tuple[bytes, Any]]  # by name: the signature of the run, and a value of JSON


def signature_of(folder: str, names: Sequence[str]) -> bytes:
    """Return a value that changes when a run's folder or one of these files in it does."""
    parts: list[int] = []
    for path in (folder, *[f"{folder}/{name}" for name in names]):
        try:
            state = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - tens of thousands, and text is faster
        except OSError:
            parts += _MISSING
        else:
            parts += (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return struct.pack(f"{len(parts)}Q", *[part & 0xFFFF_FFFF_FFFF_FFFF for part in parts])


def is_settled(signature: bytes, read_at: float) -> bool:
    """Return whether a later change of a file would certainly change the signature.

    Args:
        signature: Taken before the files were read.
        read_at: When that was, in Unix seconds.
    """
    parts = struct.unpack(f"{len(signature) // 8}Q", signature)
    newest: int = max(*parts[2::4], *parts[3::4])
    return newest < int(read_at * 1e9) - _RECENT


class Index:
    """The cache of one kind of values for the runs of a root.

    Args:
        root: The folder of the runs.
        kind: What the values are and how they are made; values of another kind are never returned.
    """

    def __init__(self, root: Path, kind: str) -> None:
        self._kind = kind
        place = f"{_VERSION}\0{socket.gethostname()}\0{root.absolute()}"
        name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._path = user_cache_path("darkit", appauthor=False) / _FOLDER / f"{name}.sqlite"

    def load(self) -> Cached:
        """Return what is cached; nothing where the cache cannot be read."""
        try:
            with closing(self._connect("ro")) as connection:
                rows = connection.execute("SELECT name, signature, value FROM runs WHERE kind = ?", (self._kind,))
                found = rows.fetchall()
            values = json.loads("[" + ",".join([value for _, _, value in found]) + "]")
            if len(values) != len(found) or not all(
                isinstance(name, str) and isinstance(signature, bytes) for name, signature, _ in found
            ):
                raise ValueError("the index has values of other types")
        except (sqlite3.Error, OSError, ValueError, TypeError, RecursionError) as error:
            logger.debug("No index of runs in %s: %s", self._path, error)
            return {}
        return {name: (signature, value) for (name, signature, _), value in zip(found, values, strict=True)}

    def store(self, changed: Mapping[str, tuple[bytes, Any]], gone: Iterable[str] = ()) -> None:
        """Cache values by name and remove others; do nothing where the cache cannot be written."""
        removed = [(self._kind, name) for name in gone]
        rows = [
            (self._kind, name, signature, json.dumps(value, separators=(",", ":")))
            for name, (signature, value) in changed.items()
        ]
        if not rows and not removed:
            return
        try:
            self._write(rows, removed)
        except (sqlite3.Error, OSError, ValueError) as error:
            logger.debug("The index of runs in %s was not written: %s", self._path, error)
            if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF not in _ELSEWHERE:
                with suppress(OSError):  # damaged; the next list makes another one
                    self._path.unlink()

    def _write(self, rows: list[tuple[str, str, bytes, str]], removed: list[tuple[str, str]]) -> None:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_unused(self._path.parent)
        with closing(self._connect("rwc")) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")  # a cache; what a power cut damages is made again
            connection.execute(
                "CREATE TABLE IF NOT EXISTS runs "
                "(kind TEXT, name TEXT, signature BLOB, value TEXT, PRIMARY KEY (kind, name))"
            )
            connection.executemany("DELETE FROM runs WHERE kind = ? AND name = ?", removed)
            connection.executemany(
                "INSERT OR REPLACE INTO runs (kind, name, signature, value) VALUES (?, ?, ?, ?)", rows
            )

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE)


def _remove_unused(folder: Path) -> None:
    """Remove the caches of roots that nobody listed for long: their homes may not exist any more."""
    for path in folder.glob("*.sqlite"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED:
                path.unlink()
