"""Data workers: they ignore signals to the process group; the trainer ends them."""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")  # Windows has only the first two
SIGNALS = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
# iterators with workers -> process that owns them
_STARTED: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_DIED = re.compile(r"DataLoader worker \(pid|Pin memory thread exited")
_FETCHING = ("torch/multiprocessing/reductions.py", "multiprocessing/resource_sharer.py")


class ShieldedWorker:
    """A ``worker_init_fn`` with which a worker ignores the signals that stop its trainer.

    ``timeout``, systemd, SLURM and Ctrl-C signal the whole process group. A worker that exits too early would break the
    training before its last step is saved. The worker ignores the first SIGTERM and exits at the second.

    Args:
        then: The user's ``worker_init_fn``, or None.
    """

    def __init__(self, then: Callable[[int], Any] | None = None) -> None:
        self.then = then
        self._terminated = False

    def __call__(self, worker_id: int) -> None:
        for number in SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked since before the worker started
        if self.then is not None:
            self.then(worker_id)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM:
            return
        if self._terminated:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._terminated = True


def shield_workers(loader: Any) -> None:
    """Make the workers of a DataLoader ignore signals to stop; other objects are unchanged."""
    if isinstance(loader, DataLoader) and loader.num_workers and not isinstance(loader.worker_init_fn, ShieldedWorker):
        loader.worker_init_fn = ShieldedWorker(loader.worker_init_fn)


def unshield_workers(loader: Any) -> None:
    """Restore a loader's own ``worker_init_fn``."""
    if isinstance(loader, DataLoader) and isinstance(loader.worker_init_fn, ShieldedWorker):
        loader.worker_init_fn = loader.worker_init_fn.then


def begin(loader: Any) -> Iterator[Any]:
    """Return ``iter(loader)``; signals are blocked until the workers have started and handle them."""
    shielded = isinstance(getattr(loader, "worker_init_fn", None), ShieldedWorker)
    if not shielded or getattr(loader, "_iterator", None) is not None:  # persistent workers exist
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        batches: Iterator[Any] = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if hasattr(batches, "_shutdown_workers"):  # a subclass may have its own iterator
        _STARTED[batches] = os.getpid()
    _tell_once()
    return batches


class Once:
    """torch's handler of SIGCHLD, but silent while the error of a worker's death already ends the training.

    That of a broken connection comes first at times; a second one would keep the training from saving its last step.

    Args:
        handler: torch's, which raises an error for a worker that has died.
    """

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        error = sys.exc_info()[1]
        if error is None or not is_worker_death(error):
            self.handler(number, frame)


def _tell_once() -> None:
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and not isinstance(handler, Once):
            signal.signal(signal.SIGCHLD, Once(handler))


def end(batches: Any) -> None:
    """End the worker processes of a loader's iterator, unless they are persistent.

    Needed because an error's traceback can keep the iterator alive.
    """
    if batches in _STARTED and not getattr(batches, "_persistent_workers", False):
        batches._shutdown_workers()


def _end_all() -> None:
    """End all workers at exit: Python sends only one SIGTERM and then waits forever."""
    for batches, owner in list(_STARTED.items()):
        if owner == os.getpid():
            batches._shutdown_workers()


atexit.register(_end_all)  # registered after torch's, so it runs before it


@contextmanager
def deferred_worker_deaths() -> Iterator[None]:
    """Defer the error for a data worker that dies during a block, such as an optimizer step, to its end.

    torch raises the error from its SIGCHLD handler, between any two instructions of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    died: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGCHLD, lambda *given: died.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
    if died and callable(handler):
        handler(*died[0])


def is_worker_death(error: BaseException) -> bool:
    """Return whether an error means that a data worker died, rather than reported an error.

    If a worker exits (``sys.exit``) before its batch is fetched, torch raises a missing file or refused connection.
    """
    if isinstance(error, FileNotFoundError | ConnectionError | EOFError):
        frames = traceback.extract_tb(error.__traceback__)
        return any(frame.filename.endswith(_FETCHING) for frame in frames)
    return isinstance(error, RuntimeError) and bool(_DIED.search(str(error)))


def may_follow_worker_death(error: BaseException) -> bool:
    """Return whether an error may come from a worker ended by the same signal as the trainer."""
    return is_worker_death(error) or isinstance(error, EOFError | ConnectionError)
