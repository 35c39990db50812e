"""The state of a run: `status.json`, written by its trainer and read by all other programs."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from darkit.errors import RunReplacedError, StorageError
from darkit.runs import files
from darkit.runs.checkpoints import checkpoint_steps
from darkit.runs.lock import is_locked
from darkit.runs.log import last_values
from darkit.runs.safe import finite_number

logger = logging.getLogger(__name__)

RUNNING = "running"
STALLED = "stalled"
FINISHED = "finished"
STOPPED = "stopped"
CRASHED = "crashed"
ALIVE = (RUNNING, STALLED)
SETTLED = "settled"
UNLOCKED = "unlocked"
CHANGING = "changing"
HEARTBEAT = 5.0  # seconds between two writes of the file
LOOK = 1.0  # seconds between calls of the watches
SILENCE = 30.0  # seconds without a heartbeat after which a trainer counts as dead or hung
LONG_SILENCE = 600.0  # the same by the clocks of two machines, which may differ
STALL = 60.0  # a run counts as stalled after at least so many seconds without progress
_STALL_FACTOR = 10  # and at least so many times its longest pause so far
_UNREADABLE = "The run has no readable status.json."
_DIED = "The process ended without a final status: it was killed, its machine went down, or its disk was full."


@dataclass(frozen=True)
class Status:
    """The state of a run.

    Attributes:
        state: ``running``, ``stalled`` (alive, without progress), ``finished``, ``stopped`` or ``crashed``; ``unknown``
            for an imported run whose log does not say how it ended.
        step: The last completed step.
        max_step: The step at which the run ends, or None.
        started: When this training began, in Unix seconds.
        heartbeat: When the file was last written, in Unix seconds.
        host: The name of its machine.
        pid: The process that trains, for information only.
        reason: Why it ended or stalled, in one sentence; empty while it is running.
        traceback: The exception's traceback when it crashed; else empty.
        diverged: The step of which the loss or a weight was not finite and ended the run, or None.
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
    diverged: int | None = None


_KINDS = {name: int | float if kind is float else kind for name, kind in get_type_hints(Status).items()}


def read_status(folder: Path) -> Status:
    """Read a run's status, and correct what a dead or hung trainer has not updated.

    A status ``running`` on this host without a lock on the run is a crash: the kernel releases the lock when the
    process dies. If the lock is held but the heartbeat has stopped, the process hangs. The lock of another host is not
    visible, so its status is returned as it is; `Watcher` detects such crashes. A run without a status whose lock is
    held is starting.
    """
    return examine_status(folder)[0]


def examine_status(folder: Path) -> tuple[Status, str]:
    """Read a run's status as `read_status` does.

    Returns:
        The status, and how long it stays true while no file of the run changes: always (`SETTLED`), as long as nobody
        holds the run's lock (`UNLOCKED`), or no longer than now (`CHANGING`).
    """
    status = _read(folder)
    if status is None:
        locked = is_locked(folder)
        status = _read(folder)  # the training may have started and ended in between
        if status is None and locked:
            return Status(state=RUNNING), CHANGING
        if status is None:
            return Status(reason=_UNREADABLE), UNLOCKED
    if status.state not in ALIVE or status.host != socket.gethostname():
        return status, SETTLED
    if not is_locked(folder):
        status = _read(folder) or status  # the training may have ended in between
        if status.state in ALIVE:
            return replace(status, state=CRASHED, step=_last_step(folder, status.step), reason=_DIED), UNLOCKED
        return status, SETTLED
    silence = time.time() - status.heartbeat
    if status.state == RUNNING and silence > SILENCE:
        reason = f"The process is alive, but sent no heartbeat for {silence:.0f} s."
        return replace(status, state=STALLED, reason=reason), CHANGING
    return status, CHANGING


def examine_copy(folder: Path, seen: float | None = None) -> tuple[Status, str]:
    """Return the status of a copied run, and how long it stays true, as `examine_status` does.

    Args:
        folder: The copy.
        seen: When the copy was last up to date, in Unix seconds; None takes the status as it is. A run whose heartbeat
            was `LONG_SILENCE` older by then has crashed.
    """
    status = _read(folder) or Status(reason=_UNREADABLE)
    if status.state not in ALIVE:
        return status, SETTLED
    silence = (seen or 0.0) - status.heartbeat
    if status.heartbeat > 0 and silence > LONG_SILENCE:
        reason = f"The process on {status.host} sent no heartbeat for {_duration(silence)}."
        status = replace(status, state=CRASHED, step=_last_step(folder, status.step), reason=reason)
    return status, CHANGING


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _last_step(folder: Path, step: int) -> int:
    """Return the last step in the status, log and checkpoints: the status of a dead process may be out of date."""
    steps = [step, *checkpoint_steps(folder)]
    with suppress(StorageError, ValueError):
        steps.append(int(last_values(folder / files.LOG).get("step", step)))
    return max(steps)


class Watcher:
    """Read statuses repeatedly, to detect that a trainer on another host has crashed.

    Heartbeats are compared only with each other, and the time between two reads is measured with the local clock,
    because the clocks of two machines may differ.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[float, float]] = {}

    def read(self, folder: Path) -> Status:
        """Read a run's status as `read_status` does; a run on another host without a heartbeat has crashed."""
        status = read_status(folder)
        if status.state not in ALIVE or status.host == socket.gethostname():
            self._seen.pop(folder, None)
            return status
        now = time.monotonic()
        heartbeat, since = self._seen.get(folder, (None, now))
        if heartbeat != status.heartbeat:
            self._seen[folder] = (status.heartbeat, now)
        elif now - since > SILENCE:
            reason = f"The process on {status.host} sent no heartbeat for {now - since:.0f} s."
            return replace(status, state=CRASHED, step=_last_step(folder, status.step), reason=reason)
        return status

    def read_copy(self, folder: Path, seen: float | None) -> Status:
        """Read the status of a copied run, whose process and lock are elsewhere even if its host has this host's name.

        Args:
            folder: The copy.
            seen: When the copy was last up to date, on the monotonic clock. While it ages, the state stays the last
                one: the silence may be the connection's.
        """
        status, _ = examine_copy(folder)
        if status.state not in ALIVE or seen is None:
            return status
        heartbeat, since = self._seen.get(folder, (None, seen))
        if heartbeat != status.heartbeat:
            self._seen[folder] = (status.heartbeat, seen)
        elif seen - since > SILENCE:
            reason = f"The process on {status.host} sent no heartbeat for {seen - since:.0f} s."
            return replace(status, state=CRASHED, step=_last_step(folder, status.step), reason=reason)
        return status


def _read(folder: Path) -> Status | None:
    """Return the content of the file without values of a wrong type; None if it has no state."""
    values = files.read_json(folder / files.STATUS)
    if not isinstance(values.get("state"), str):
        return None
    known: dict[str, Any] = {
        key: value
        for key, value in values.items()
        if isinstance(value, _KINDS.get(key, ()))
        and (value is None or isinstance(value, str) or finite_number(value) is not None)
    }
    return Status(**known)


class StatusWriter:
    """Keep ``status.json`` up to date during a training, in a thread.

    Args:
        folder: The run directory.
        max_step: The step at which the run ends, or None.
        progress: Returns the last completed step; called from the writer's thread.
        signs: Returns a value that changes with any progress, such as a count of batches; by default the step.
        watches: Called every second from the writer's thread; the first error of each is logged.
        check: Called before every write; if it raises `RunReplacedError`, the thread ends.

    Attributes:
        max_step: The step at which the run ends, or None; when it is set, the file follows within a second.
    """

    def __init__(
        self,
        folder: Path,
        max_step: int | None,
        progress: Callable[[], int],
        *,
        signs: Callable[[], object] | None = None,
        watches: Sequence[Callable[[], None]] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = folder / files.STATUS
        self._check = check
        self._progress = progress
        self._signs = signs or progress
        self._watches = watches
        self.max_step = max_step
        self._started = time.time()
        self._last_sign, self._moved, self._longest = self._signs(), time.monotonic(), 0.0
        self._ended = threading.Event()
        self._write(RUNNING)
        self._thread = threading.Thread(target=self._work, name="darkit-status", daemon=True)
        self._thread.start()

    def close(self, state: str, reason: str = "", traceback: str = "", diverged: int | None = None) -> None:
        """Write the final status. Raises `StorageError`."""
        self.leave()
        self._write(state, reason, traceback, diverged)

    def leave(self) -> None:
        """End the thread without a final status: another writer takes over."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        written, last = time.monotonic(), (RUNNING, self.max_step)
        failed: list[Callable[[], None]] = []
        while not self._ended.wait(min(LOOK, HEARTBEAT)):
            try:
                self._check()
            except RunReplacedError:  # also raised in the training, which ends
                return
            for watch in self._watches:
                try:
                    watch()
                except Exception:
                    if watch not in failed:
                        failed.append(watch)
                        logger.warning("A regular task of the run failed and will be tried again.", exc_info=True)
            state, reason = self._look()
            facts = (state, self.max_step)
            if facts == last and time.monotonic() - written < HEARTBEAT:
                continue
            try:
                self._write(state, reason)
                written, last = time.monotonic(), facts
            except RunReplacedError:
                return
            except StorageError as error:
                logger.warning("The status of the run could not be written and will be tried again: %s", error)

    def _look(self) -> tuple[str, str]:
        now, sign = time.monotonic(), self._signs()
        still = now - self._moved
        if sign != self._last_sign:
            self._last_sign, self._moved, self._longest = sign, now, max(self._longest, still)
            return RUNNING, ""
        if still > max(STALL, _STALL_FACTOR * self._longest):
            return STALLED, f"No progress for {still:.0f} s."
        return RUNNING, ""

    def _write(self, state: str, reason: str = "", traceback: str = "", diverged: int | None = None) -> None:
        status = Status(
            state=state,
            step=self._progress(),
            max_step=self.max_step,
            started=self._started,
            heartbeat=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            reason=reason,
            traceback=traceback,
            diverged=diverged,
        )
        self._check()
        try:
            files.write_json(self._path, asdict(status))
        except StorageError as error:
            self._overwrite(status, error)

    def _overwrite(self, status: Status, error: StorageError) -> None:
        """Overwrite the file within its space after a failed write, with shortened texts if necessary.

        Raises:
            StorageError: ``error``, the reason of the failed write, if this fails too.
        """
        for reason, traceback in ((2000, 500), (500, 0), (30, 0), (0, 0)):  # characters of each that are kept
            said = replace(
                status, reason=status.reason[:reason], traceback=status.traceback[-traceback:] * bool(traceback)
            )
            try:
                return files.overwrite_json(self._path, asdict(said))
            except StorageError:
                continue
        raise error
