"""Processes that load data: a signal to the whole process group leaves them to their trainer, which ends them."""

from __future__ import annotations

import atexit
import os
import re
import signal
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")  # Windows has only the first two
SIGNALS = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
_STARTED: weakref.WeakKeyDictionary[Any, int] = (
    weakref.WeakKeyDictionary()
)  # iterators with workers, and whose they are
_DIED = re.compile(r"DataLoader worker \(pid|Pin memory thread exited")
_FETCHING = ("torch/multiprocessing/reductions.py", "multiprocessing/resource_sharer.py")


class PoliteWorker:
    """A ``worker_init_fn`` that lets a worker outlive the signals that ask its trainer to stop.

    ``timeout``, systemd, SLURM and Ctrl-C signal the whole process group. A worker that died of it would break the
    training before its last step is saved. The first SIGTERM is left to the trainer; a second ends the worker.

    Args:
        then: The user's ``worker_init_fn``, or None.
    """

    def __init__(self, then: Callable[[int], Any] | None = None) -> None:
        self.then = then
        self._terminated = False

    def __call__(self, worker_id: int) -> None:
        for number in SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held back since before the worker was started
        if self.then is not None:
            self.then(worker_id)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM:
            return
        if self._terminated:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._terminated = True


def make_polite(loader: Any) -> None:
    """Lets the workers of a DataLoader outlive a request to stop; anything else is left as it is."""
    if isinstance(loader, DataLoader) and loader.num_workers and not isinstance(loader.worker_init_fn, PoliteWorker):
        loader.worker_init_fn = PoliteWorker(loader.worker_init_fn)


def undo_polite(loader: Any) -> None:
    """Gives a loader its own ``worker_init_fn`` back."""
    if isinstance(loader, DataLoader) and isinstance(loader.worker_init_fn, PoliteWorker):
        loader.worker_init_fn = loader.worker_init_fn.then


def begin(loader: Any) -> Iterator[Any]:
    """Returns ``iter(loader)``; signals are held back while workers start, and in a worker until it listens to them."""
    polite = isinstance(getattr(loader, "worker_init_fn", None), PoliteWorker)
    if not polite or getattr(loader, "_iterator", None) is not None:  # persistent workers are there already
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        batches: Iterator[Any] = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if hasattr(batches, "_shutdown_workers"):  # a subclass may make its iterator itself
        _STARTED[batches] = os.getpid()
    return batches


def end(batches: Any) -> None:
    """Ends the worker processes behind the iterator of a loader, unless they are kept for the next epoch.

    An error's traceback may hold the iterator for as long as the process lives.
    """
    if batches in _STARTED and not getattr(batches, "_persistent_workers", False):
        batches._shutdown_workers()


def _end_all() -> None:
    """Ends all workers when this process ends: Python sends them one SIGTERM, and then waits for them without end."""
    for batches, owner in list(_STARTED.items()):
        if owner == os.getpid():
            batches._shutdown_workers()


atexit.register(_end_all)  # after torch's own, and so run before it: then its workers can still be ended


@contextmanager
def deaths_held_back() -> Iterator[None]:
    """Report a data worker that dies in a block after the block, and not in the middle of an optimizer step.

    torch raises an error from its handler of SIGCHLD, between any two instructions of the main thread.
    """
    died: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGCHLD, lambda *given: died.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
    if died and callable(handler):
        handler(*died[0])


def is_worker_death(error: BaseException) -> bool:
    """Says whether an error tells of a data worker that died, and not of an error that one has reported.

    A worker that exits (``sys.exit``) before its batch was fetched is a missing file or a refused connection to torch.
    """
    if isinstance(error, FileNotFoundError | ConnectionError | EOFError):
        frames = traceback.extract_tb(error.__traceback__)
        return any(frame.filename.endswith(_FETCHING) for frame in frames)
    return isinstance(error, RuntimeError) and bool(_DIED.search(str(error)))


def may_follow_a_death(error: BaseException) -> bool:
    """Says whether an error may come of a worker that was ended by the signal which also asks the trainer to stop."""
    return is_worker_death(error) or isinstance(error, EOFError | ConnectionError)
