"""Work beside the training that gives way to it, until somebody waits for the result."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

_NICENESS = 19  # what is left of the cores where the training uses all of them
_thread = threading.local()
_waiting: list[object] = []  # one entry for each thread that waits


def begin_background() -> None:
    """Mark the calling thread as one that works beside a training."""
    _thread.is_background = True


@contextmanager
def hurrying() -> Iterator[None]:
    """Let all work go on at full priority during a block that waits for it, such as the end of a training."""
    entry = object()
    _waiting.append(entry)
    try:
        yield
    finally:
        _waiting.remove(entry)


class Beside:
    """Runs pieces of work in threads of low priority.

    A thread cannot get its priority back, and on a busy machine one of low priority may take minutes. So the pieces
    must be small, and are run by the calling thread itself once somebody waits, in a thread that works for no training,
    and where threads have no priorities.

    Args:
        threads: The number of threads that call it.
    """

    def __init__(self, threads: int) -> None:
        yields = sys.platform == "linux" and getattr(_thread, "is_background", False)
        self._threads = ThreadPoolExecutor(threads, "darkit-beside", _lower_priority) if yields else None

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Run a piece of work and wait for it. Raises its error."""
        if self._threads is None or _waiting:
            work(*arguments)
            return
        try:
            job = self._threads.submit(work, *arguments)
        except RuntimeError:  # at interpreter exit no thread can start
            work(*arguments)
        else:
            job.result()

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown()


def _lower_priority() -> None:
    with suppress(OSError):  # a container may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
