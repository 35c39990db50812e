"""What a run is doing now: `status.json`, written by its trainer and read by everybody else."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
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


def read_status(folder: Path) -> Status:
    """Reads a run's status, and sees through one that its dead trainer left behind.

    A status that says ``running`` on this host while nobody holds the run's lock is a crash: the kernel frees the lock
    however the process dies. On another host the lock says nothing, and the file is taken at its word.
    """
    values = files.read_json(folder / files.STATUS)
    status = _from_json(values)
    if status.state == RUNNING and status.host == socket.gethostname() and not is_locked(folder):
        again = _from_json(files.read_json(folder / files.STATUS))  # it may have ended between the two looks
        if again.state == RUNNING:
            reason = "The process ended without a word: it was killed, or the machine went down."
            return Status(**{**asdict(again), "state": CRASHED, "reason": reason})
        return again
    return status


def _from_json(values: dict[str, Any]) -> Status:
    known = {field.name for field in fields(Status)}
    if not values:
        return Status(reason="The run has no readable status: it ended before it began.")
    return Status(**{key: value for key, value in values.items() if key in known})


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
