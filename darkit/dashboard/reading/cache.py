"""The logs that were read, kept in memory up to a limit; the least recently used are dropped first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from darkit.dashboard.reading.tail import LogTail, Table, refresh_together

DEFAULT_BOUND = 2**30  # bytes
_TOGETHER = 50  # logs read at a time, during which other requests for them wait


class LogCache:
    """Follow logs by path.

    Args:
        bound: How many bytes of numbers to keep. The last read is kept even if it alone is larger.
    """

    def __init__(self, bound: int = DEFAULT_BOUND) -> None:
        self.bound = bound
        self._tails: OrderedDict[Path, LogTail] = OrderedDict()
        self._lock = threading.Lock()

    def read_many(self, paths: Iterable[Path]) -> list[Table]:
        """Read the new rows of logs and return all, in the given order."""
        tails = [self._tail(path) for path in paths]
        if len(tails) == 1:
            tables = [tails[0].refresh()]
        else:
            for start in range(0, len(tails), _TOGETHER):
                refresh_together(tails[start : start + _TOGETHER])
            tables = [tail.table() for tail in tails]
        self._shrink(set(tails))
        return tables

    @property
    def size(self) -> int:
        """Bytes of numbers kept now."""
        with self._lock:
            return sum(tail.size for tail in self._tails.values())

    def _tail(self, path: Path) -> LogTail:
        with self._lock:
            tail = self._tails.get(path)
            if tail is None:
                tail = self._tails[path] = LogTail(path)
            self._tails.move_to_end(path)
            return tail

    def _shrink(self, used: set[LogTail]) -> None:
        with self._lock:
            size = sum(tail.size for tail in self._tails.values())
            while size > self.bound and len(self._tails) > len(used):
                _, oldest = self._tails.popitem(last=False)
                size -= oldest.size
