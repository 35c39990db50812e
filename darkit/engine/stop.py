"""Stopping a training early, by a signal or a request, at the end of a step."""

from __future__ import annotations

import builtins
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from darkit.engine.data.workers import SIGNALS
from darkit.runs.forks import forget_in_child

logger = logging.getLogger(__name__)
_SAME = 0.2  # seconds within which a second signal is the first: ``timeout`` signals a process and then its group
_BLOCKED = 5.0  # seconds in which a process heeds a SIGTERM, unless it is blocked
_LAST_WORDS = 10.0  # seconds that a blocked process has to write its status
_LATE = 1.0  # seconds that a signal may come later than the death of a worker which it was sent to as well


class StopRequest:
    """A request to stop the training, set from a signal handler or another thread.

    Attributes:
        reason: The reason in one sentence; empty while nothing is requested.
        signal: The signal that requested it, or None.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.signal: signal.Signals | None = None

    def ask(self, reason: str, by: signal.Signals | None = None) -> None:
        """Request a stop; the first reason stays."""
        if not self.reason:
            self.reason, self.signal = reason, by

    def end_process(self) -> None:
        """End the process as the signal would have: exit code 128 + its number.

        An interactive interpreter survives. A SLURM job that was warned by SIGUSR1 is requeued first.
        """
        if self.signal is None:
            return
        if self.signal == signal.SIGUSR1:
            try:
                requeue()
            except (OSError, subprocess.CalledProcessError) as error:
                logger.warning("SLURM did not requeue job %s: %s", os.environ.get("SLURM_JOB_ID"), error)
        if not is_interactive():
            raise SystemExit(128 + self.signal)


class SignalGuard:
    """Turn SIGTERM, SIGINT, SIGUSR1 and SIGHUP into a request; a second signal ends the process at once.

    SIGHUP comes when a terminal is closed, often from both the shell and the kernel, so a repeated one changes nothing.
    Where it is ignored, as under ``nohup``, it stays ignored.
    In a notebook or at a prompt the second signal raises `KeyboardInterrupt` instead, and the process survives.

    Outside the main thread, where Python allows no handlers, it does nothing.

    Attributes:
        request: The request that a signal sets.
        promise: What happens next, for the person who sent the signal.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self.promise = "saving after this step, then stopping"
        self._before: dict[signal.Signals, Any] = {}
        self._received = 0.0  # when the first signal came
        self._has_steps = True
        self._alarm: _Alarm | None = None
        self._process = os.getpid()
        forget_in_child(self)

    def forget(self) -> None:
        """Restore the handlers: a forked child, such as a pool's worker, must end when it is terminated."""
        self.uninstall()

    def install_before_steps(self) -> None:
        """Install handlers for the time before the first step: they raise `StopTraining` at once, as Ctrl-C does."""
        self._has_steps = False
        self._install([number for number in SIGNALS if number != signal.SIGINT])

    def install_for_launcher(self, end: Callable[[], object]) -> None:
        """Let the SIGTERM of a launcher, which ends all processes once one has failed, raise `StopTraining` at once.

        The run's end can then be written. A handler of the program's own stays.

        Args:
            end: Ends the run from another thread, where this one is blocked in a call outside of Python.
        """
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._has_steps = False
            self._install([signal.SIGTERM])
            if self._before:  # in the main thread
                self._alarm = _Alarm(self._handle, lambda: self._end_blocked(end))

    def _end_blocked(self, end: Callable[[], object]) -> None:
        self.request.ask("Stopped by SIGTERM.", signal.SIGTERM)
        end()

    def hold(self) -> None:
        """Only note signals from now on: the end of the run is being written."""
        self._has_steps = True

    def install(self) -> None:
        """Install the handlers, again after other code has replaced them."""
        self._has_steps = True
        self._silence()  # a signal is heeded at the end of a step, however long it takes
        self._install(SIGNALS)

    def _install(self, numbers: Sequence[signal.Signals]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for number in numbers:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            before = signal.signal(number, self._handle)
            self._before.setdefault(number, before)

    def uninstall(self) -> None:
        """Restore the handlers from before; Python allows that only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()
        self._received = 0.0
        self._silence()

    def _silence(self) -> None:
        if self._alarm is not None and threading.current_thread() is threading.main_thread():
            self._alarm.close()
            self._alarm = None

    def is_asked_soon(self) -> bool:
        """Return whether a stop is requested, after waiting briefly for a signal that may be on its way."""
        deadline = time.monotonic() + _LATE
        while not self.request.reason and self._before and time.monotonic() < deadline:
            time.sleep(0.01)
        return bool(self.request.reason)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # it came to a forked child before `forget`
            self.uninstall()
            signal.raise_signal(number)
            return
        received = signal.Signals(number)
        if self._alarm is not None:
            self._alarm.heeded.set()
        if not self._has_steps:
            self.request.ask(f"Stopped by {received.name}.", received)
            raise StopTraining
        if self._received and (number == signal.SIGHUP or time.monotonic() - self._received < _SAME):
            return
        if self._received and is_interactive():
            raise KeyboardInterrupt
        if self._received:
            os._exit(128 + number)
        self._received = time.monotonic()
        self.request.ask(f"Stopped by {received.name}.", received)
        # print() may be running in the frame that was interrupted
        with suppress(OSError):  # the terminal may be gone
            again = "" if number == signal.SIGHUP else "; once more stops at once"
            os.write(2, f"\n{received.name}: {self.promise}{again}.\n".encode())


class _Alarm:
    """Ends the process after a SIGTERM that it cannot heed: Python's handlers wait for a blocked collective to return.

    The interpreter writes the number of each signal into a socket as it comes; a thread reads it. Where other code,
    such as an event loop, has such a socket, or has replaced the handler, nothing is done.

    Args:
        handler: Python's handler of SIGTERM.
        end: Ends the run.

    Attributes:
        heeded: Set by the handler.
    """

    def __init__(self, handler: Callable[..., object], end: Callable[[], object]) -> None:
        self.heeded = threading.Event()
        self._handler, self._end = handler, end
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        others = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        if others != -1:
            with suppress(ValueError, OSError):  # it has been closed since
                signal.set_wakeup_fd(others)
        threading.Thread(target=self._wait, name="darkit-signals", daemon=True).start()

    def close(self) -> None:
        """Wait no more."""
        self.heeded.set()
        found = signal.set_wakeup_fd(-1)
        if found not in (-1, self._write.fileno()):  # other code's since
            with suppress(ValueError, OSError):
                signal.set_wakeup_fd(found)
        self._write.close()

    def _wait(self) -> None:
        with self._read:
            while received := self._read.recv(64):
                if signal.SIGTERM in received and not self.heeded.wait(_BLOCKED) and self._is_handled():
                    ending = threading.Thread(target=self._end, daemon=True)
                    ending.start()
                    ending.join(_LAST_WORDS)
                    os._exit(128 + signal.SIGTERM)

    def _is_handled(self) -> bool:
        return signal.getsignal(signal.SIGTERM) == self._handler


def is_interactive() -> bool:
    """Return whether this interpreter is interactive: a prompt, ``python -i`` or a notebook."""
    return hasattr(sys, "ps1") or hasattr(builtins, "__IPYTHON__") or bool(sys.flags.interactive)


def requeue() -> bool:
    """Requeue the SLURM job of this process; return whether it runs in one.

    Raises:
        OSError: ``scontrol`` cannot be started.
        subprocess.CalledProcessError: SLURM refused.
    """
    job = os.environ.get("SLURM_JOB_ID")
    program = shutil.which("scontrol")
    if not job or program is None:
        return False
    subprocess.run([program, "requeue", job], check=True)
    return True


class StopTraining(BaseException):
    """Leave a hand-written loop at the end of a step after a request to stop, past any ``except Exception``."""


class Rewind(StopTraining):
    """Leave a training for an earlier checkpoint, from which it begins again.

    Attributes:
        found: What to resume from, with the session that is paused meanwhile.
    """

    def __init__(self, reason: str, found: Any) -> None:
        super().__init__(reason)
        self.found = found
