"""One process at a time, by a lock file."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkit.runs.lock import is_at


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file, which is free again however the process ends, and gone if it ends well."""
    while True:
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_at(path, lock.fileno()):
                continue  # whoever had it has removed it meanwhile
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
