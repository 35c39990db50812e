"""What changes a whole run (its deletion, its renaming, pruning) waits for no training: it holds the run's lock."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkit.errors import RunLockedError
from darkit.runs import files
from darkit.runs.inert import inert
from darkit.runs.lock import RunLock, is_locked
from darkit.runs.safe import UnreadableError, finite_number, read_object
from darkit.runs.status import ALIVE

_SILENCE = 60.0  # seconds without a heartbeat after which a run on another host counts as ended
_LONGEST_HOST = 100  # characters that are shown


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run that nobody trains, so that no training starts meanwhile.

    Raises:
        RunLockedError: The run is being trained, here or, as its heartbeat says, on another host.
        StorageError: The file system refused.
    """
    host = beating_host(folder)
    if host:
        raise RunLockedError(f"The run {folder.name!r} is being trained on {host}; stop it first.")
    lock = RunLock(folder)
    try:
        yield
    finally:
        lock.release()


def is_running(folder: Path) -> bool:
    """Return whether a run is being trained, here or, as its heartbeat says, on another host."""
    return is_locked(folder) or bool(beating_host(folder))


def beating_host(folder: Path) -> str:
    """Return the other host on which a run trains, as its heartbeat says, or nothing."""
    try:
        status = read_object(folder / files.STATUS)
    except (FileNotFoundError, UnreadableError):  # a broken status does not protect a run from its owner
        return ""
    beat = finite_number(status.get("heartbeat"))
    elsewhere = status.get("state") in ALIVE and status.get("host") != socket.gethostname()
    beats = beat is not None and abs(time.time() - beat) < _SILENCE
    return inert(repr(status.get("host")))[:_LONGEST_HOST] if elsewhere and beats else ""
