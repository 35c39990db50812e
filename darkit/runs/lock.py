"""One trainer per run: a kernel lock that is free again however the process ends."""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

from darkit.errors import RunLockedError, StorageError
from darkit.runs import files
from darkit.runs.safe import is_strange, open_for_writing

_PATIENCE = 0.2  # seconds; a reader that looks whether the lock is free holds it for microseconds
_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


class RunLock:
    """An exclusive ``flock`` on a run directory.

    Args:
        folder: The run directory; it must exist.

    Raises:
        RunLockedError: Another process holds it, or another part of this one.
        StorageError: The lock file cannot be opened or locked.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = None
        try:
            descriptor = open_for_writing(folder / files.LOCK, os.O_RDWR | os.O_CREAT)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(error.errno, f"Cannot lock the run in {folder}: {error.strerror}.") from error
        try:
            _lock(descriptor, folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Frees the lock; a second call does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            _held.discard(self)
            os.close(descriptor)

    def _forget(self) -> None:
        """Closes a forked child's copy, so that a data worker that outlives the trainer does not keep the lock."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise RunLockedError(
                    f"The run {folder.name!r} is being trained already; wait until that ends, or choose another name."
                ) from error
            time.sleep(0.01)
        except OSError as error:  # some network file systems know no locks
            raise StorageError(error.errno, f"Cannot lock the run in {folder}: {error.strerror}.") from error


def is_locked(folder: Path) -> bool:
    """Says whether some process on this host is training the run in this folder; True where one cannot look."""
    if is_strange(folder / files.LOCK):  # no trainer holds such a lock
        return False
    try:
        descriptor = os.open(folder / files.LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _forget_in_child() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_in_child)
