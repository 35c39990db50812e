"""The jobs of ``darkit train -m``, which Hydra's launchers may run in other processes.

What a job says in another process is lost to the parent, and a signal to the parent does not reach it. So such a job
writes into a folder of the sweep that it trains, and what it failed with; the parent reads that at the end, and passes
signals on. A job whose parent has died stops as if it had been asked to.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import psutil

from darkit.cli.errors import INTERRUPTED
from darkit.runs import files

_STOP = "stop"
_POLL = 0.05  # seconds
_WATCH = 0.25  # seconds between two looks at the parent
_PATIENCE = 60.0  # seconds for the jobs of a stopped sweep to save


class Failure(NamedTuple):
    """A job that failed: its number, its overrides, its exit code, the reason, and whether it was told already."""

    job: int
    overrides: str
    code: int
    reason: str
    told: bool = True


class SweepJobs:
    """The jobs of one sweep, in this process and in others; it is passed to those.

    Args:
        home: The darkit home, in which the folder of the jobs is made when a job in another process begins.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "sweeps" / f".jobs-{secrets.token_hex(8)}"
        self._makes_parent = not self.folder.parent.exists()
        self.parent = os.getpid()
        self.host = socket.gethostname()
        self.failed: list[Failure] = []
        self._before: dict[signal.Signals, Any] = {}

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a job in another process than the sweep."""
        return os.getpid() != self.parent or socket.gethostname() != self.host

    def fail(self, job: int, overrides: str, code: int, reason: str) -> None:
        """Record that a job failed."""
        failure = Failure(job, overrides, code, " ".join(reason.split()), told=not self.is_elsewhere)
        if not self.is_elsewhere:
            self.failed.append(failure)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(self.folder / f"failed-{job}.json", failure._asdict())

    def failures(self) -> list[Failure]:
        """Return the jobs that failed, wherever they ran, by their number."""
        found = list(self.failed)
        for path in self.folder.glob("failed-*.json"):
            with suppress(OSError, ValueError, TypeError):
                found.append(Failure(**json.loads(path.read_text(encoding="utf-8"))))
        return sorted(found)

    @contextmanager
    def training(self, launcher: str) -> Iterator[bool]:
        """Register the job in this process while it trains; yield whether it may begin.

        SLURM owns the jobs that it runs: they continue when the parent ends.

        Args:
            launcher: The launcher's ``_target_``.
        """
        if not self.is_elsewhere or launcher.endswith("SlurmLauncher"):
            yield True
            return
        if (self.folder / _STOP).exists() or not is_running(self.parent):
            yield False
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        mark = self.folder / f"{os.getpid()}.pid"
        mark.touch()
        done = threading.Event()
        watch = threading.Thread(target=stop_without, args=(self.parent, done), daemon=True)
        watch.start()
        try:
            yield True
        finally:
            done.set()
            watch.join()
            mark.unlink(missing_ok=True)

    def __enter__(self) -> SweepJobs:
        """Pass SIGTERM and SIGINT on to jobs in other processes; those in this process handle them themselves."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._makes_parent:
            with suppress(OSError):  # it holds something else
                self.folder.parent.rmdir()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.parent:  # a forked child
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self.stop_others()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def stop_others(self) -> None:
        """Let no further job begin, stop those in other processes, and wait until they have saved."""
        if not any(self.folder.glob("*.pid")):
            return
        (self.folder / _STOP).touch()
        deadline = time.monotonic() + _PATIENCE
        asked: set[str] = set()
        while time.monotonic() < deadline:
            running = [path.stem for path in self.folder.glob("*.pid") if is_running(int(path.stem))]
            if not running:
                return
            for pid in {*running} - asked:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)
            asked.update(running)
            time.sleep(_POLL)


def describe_failures(failures: list[Failure]) -> str:
    """Return which jobs failed and why, in one sentence."""
    shown = "; ".join(f"job {failure.job} ({failure.overrides}): {failure.reason}" for failure in failures[:5])
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return f"{len(failures)} job{'s' if len(failures) > 1 else ''} of the sweep failed. {shown}{more}"


def exit_code(failures: list[Failure]) -> int:
    """Return the exit code of a sweep: that of the first unexpected error, else of the first failure, else 0."""
    codes = [failure.code for failure in failures]
    return next((code for code in codes if code not in (0, INTERRUPTED)), 0) if 1 not in codes else 1


def is_running(pid: int) -> bool:
    """Return whether a process runs, and is not only waiting to be reaped."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stop_without(parent: int, done: threading.Event) -> None:
    """Stop this process as SIGTERM would, once the parent has ended, unless the job is done before."""
    while not done.wait(_WATCH):
        if not is_running(parent):
            os.kill(os.getpid(), signal.SIGTERM)
            return
