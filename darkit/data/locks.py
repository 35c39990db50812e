"""One process at a time, by a lock file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which is free again however the process ends, and deleted unless the process is killed."""
    with FileLock(path):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows deletes no open file; filelock then deletes it on release
                path.unlink()
