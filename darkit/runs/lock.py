"""Locks: one trainer per run, and one writer of a folder's small files. The kernel releases a dead process's locks."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from darkit.errors import RunLockedError, RunReplacedError, StorageError
from darkit.runs import files
from darkit.runs.forks import forget_in_child
from darkit.runs.safe import is_strange, open_for_writing

try:
    import fcntl
except ImportError:  # Windows, where runs can be read but not trained
    fcntl = None  # type: ignore[assignment]

_PATIENCE = 0.2  # seconds to retry; `is_locked` in another process holds the lock for microseconds
_LONGEST_WRITE = 10.0  # seconds to wait for another writer of a folder's small files
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.ENOSYS)


class RunLock:
    """An exclusive ``flock`` on a run directory.

    Args:
        folder: The run directory; it must exist.

    Raises:
        RunLockedError: Another process, or another part of this process, holds the lock.
        StorageError: The lock file cannot be opened or locked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changing = threading.Lock()
        self._directory: int | None = None
        self._descriptor: int | None = (descriptor := _open_locked(folder))
        try:
            with _locking(folder):
                self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except StorageError:
            os.close(descriptor)
            raise
        # some user-space file systems change a file's inode number at every stat, so that nothing can be compared
        self._comparable = is_at(folder / files.LOCK, descriptor) and is_at(folder, self._directory)
        forget_in_child(self)

    def check(self) -> None:
        """Check that the folder is still the one whose lock is held; after `release`, do nothing.

        If only the lock file was removed, create and lock it again.

        Raises:
            RunReplacedError: The folder was deleted, moved or replaced, or another process holds its lock.
        """
        with self._changing:
            if self._descriptor is None or self._directory is None or not self._comparable:
                return
            if is_at(self._folder / files.LOCK, self._descriptor):
                return
            reason = "it was deleted, moved or replaced"
            if is_at(self._folder, self._directory):
                try:
                    again = _open_locked(self._folder)
                except (RunLockedError, StorageError) as error:
                    reason = f"its lock is lost ({error})"
                else:
                    os.close(self._descriptor)
                    self._descriptor = again
                    return
        raise RunReplacedError(
            errno.ESTALE,
            f"The folder {self._folder} is no longer the one that this training writes into: {reason}. The training "
            "ends and writes nothing more.",
        )

    def release(self) -> None:
        """Free the lock; a second call does nothing."""
        with self._changing:
            self._close()

    def forget(self) -> None:
        """Close a forked child's copy, so that a data worker that outlives the trainer does not keep the lock."""
        self._changing = threading.Lock()  # a thread that the child does not have may hold the old one
        with suppress(OSError):
            self._close()

    def _close(self) -> None:
        descriptors, self._descriptor, self._directory = (self._descriptor, self._directory), None, None
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)


def _open_locked(folder: Path) -> int:
    """Open and lock the lock file in the folder; return its descriptor."""
    if fcntl is None:
        raise StorageError(errno.ENOSYS, f"Cannot lock the run in {folder}: Windows has no flock; use Linux or WSL.")
    deadline = time.monotonic() + _PATIENCE
    while True:
        late = time.monotonic() > deadline
        with _locking(folder), ExitStack() as undo:  # some network file systems have no locks
            descriptor = open_for_writing(folder / files.LOCK, os.O_RDWR | os.O_CREAT)
            undo.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if late:
                    raise RunLockedError(
                        f"Run {folder.name!r} is already being trained. Wait until it ends, or choose another name."
                    ) from error
                time.sleep(0.01)
                continue
            if late or is_at(folder / files.LOCK, descriptor):  # otherwise the run was moved, with its lock
                undo.pop_all()
                return descriptor


def _locking(folder: Path) -> AbstractContextManager[None]:
    return files.storage_errors(f"lock the run in {folder}")


def is_at(path: Path, descriptor: int) -> bool:
    """Return whether an open file or folder is still what a path names; a link does not count."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def is_locked(folder: Path) -> bool:
    """Return whether a process on this host trains the run in this folder; True if that cannot be determined."""
    if fcntl is None or is_strange(folder / files.LOCK):  # no trainer holds such a lock
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


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Let one process or thread at a time read, change and write the notes of a run.

    On a file system without locks, do not wait.

    Raises:
        StorageError: The lock file cannot be opened, or another process has been writing for ten seconds.
    """
    from filelock import FileLock, Timeout  # late: commands that only list runs need neither

    path = folder / files.NOTES_LOCK
    lock = FileLock(path, timeout=_LONGEST_WRITE, poll_interval=0.002)
    try:
        lock.acquire()
    except Timeout as error:
        raise StorageError(errno.EBUSY, f"Another process is writing to {folder}; try again.") from error
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise StorageError(error.errno, f"Cannot write to {folder}: {error.strerror}.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot delete an open file; filelock deletes it on release
            path.unlink()
        lock.release()
