"""What a run is doing now: `status.json`, written by its trainer and read by everybody else."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any

from darkit.errors import StorageError
from darkit.runs import files
from darkit.runs.lock import is_locked

logger = logging.getLogger(__name__)

RUNNING = "running"
FINISHED = "finished"
STOPPED = "stopped"
CRASHED = "crashed"
HEARTBEAT = 5.0  # seconds


@dataclass(frozen=True)
class Status:
    """What a run is doing.

    Attributes:
        state: ``running``, ``finished``, ``stopped`` or ``crashed``.
        step: The last completed step.
        max_step: The step at which the run ends, or None.
        started: When this training began, in Unix seconds.
        heartbeat: When the file was last written, in Unix seconds.
        host: Where it runs.
        pid: The process that trains, for people to read; nothing is decided from it.
        reason: Why it ended, in one sentence; empty while it runs.
        traceback: The exception's traceback when it crashed; else empty.
    """

    state: str = CRASHED
    step: int = 0
    max_step: int | None = None
    started: float = 0.0
    heartbeat: float = 0.0
    host: str = ""
    pid: int = 0
    reason: str = ""
    traceback: str = ""


_KINDS: dict[str, type | UnionType] = {
    "state": str,
    "step": int,
    "max_step": int | None,
    "started": int | float,
    "heartbeat": int | float,
    "host": str,
    "pid": int,
    "reason": str,
    "traceback": str,
}


def read_status(folder: Path) -> Status:
    """Reads a run's status, and sees through one that its dead trainer left behind.

    A status that says ``running`` on this host while nobody holds the run's lock is a crash: the kernel frees the lock
    however the process dies. On another host the lock says nothing, and the file is taken at its word. A run without a
    status is running while its lock is held, for it is just starting.
    """
    status = _read(folder)
    if status is None:
        locked = is_locked(folder)
        status = _read(folder)  # it may have begun and ended between the two looks
        if status is None:
            return Status(state=RUNNING) if locked else Status(reason="The run has no readable status.json.")
    if status.state == RUNNING and status.host == socket.gethostname() and not is_locked(folder):
        status = _read(folder) or status  # likewise
        if status.state == RUNNING:
            reason = "The process ended without a word: it was killed, or the machine went down."
            return replace(status, state=CRASHED, reason=reason)
    return status


def _read(folder: Path) -> Status | None:
    """Returns what the file says, without values of a wrong type; None if it does not even tell a state."""
    values = files.read_json(folder / files.STATUS)
    if not isinstance(values.get("state"), str):
        return None
    known: dict[str, Any] = {key: value for key, value in values.items() if isinstance(value, _KINDS.get(key, ()))}
    return Status(**known)


class StatusWriter:
    """Keeps ``status.json`` true while a run trains, from a thread of its own.

    Args:
        folder: The run directory.
        max_step: The step at which the run ends, or None.
        progress: Returns the last completed step; called from the writer's thread.
    """

    def __init__(self, folder: Path, max_step: int | None, progress: Callable[[], int]) -> None:
        self._path = folder / files.STATUS
        self._progress = progress
        self._max_step = max_step
        self._started = time.time()
        self._ended = threading.Event()
        self._write(RUNNING)
        self._thread = threading.Thread(target=self._beat, name="darkit-status", daemon=True)
        self._thread.start()

    def close(self, state: str, reason: str = "", traceback: str = "") -> None:
        """Writes the last status. Raises `StorageError` when the file system refuses."""
        self._ended.set()
        self._thread.join()
        self._write(state, reason, traceback)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            try:
                self._write(RUNNING)
            except StorageError as error:
                logger.warning("The status of the run could not be written and will be tried again: %s", error)

    def _write(self, state: str, reason: str = "", traceback: str = "") -> None:
        status = Status(
            state=state,
            step=self._progress(),
            max_step=self._max_step,
            started=self._started,
            heartbeat=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            reason=reason,
            traceback=traceback,
        )
        files.write_json(self._path, asdict(status))
