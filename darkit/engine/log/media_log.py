"""The media of a run on their way to its folder: queued by the training thread, written by the log's thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from darkit.engine.log.media import Encoded
from darkit.errors import StorageError
from darkit.runs.forks import forget_in_child
from darkit.runs.media import MediaStore, check_medium

_MOST_WAITING = 256 * 2**20  # bytes; beyond that, the training waits for the disk


class MediaLog:
    """Queue encoded media. It opens the folder when the first one is written.

    Args:
        folder: The run directory.
        check: Called before each write; if it raises, nothing is written.
    """

    def __init__(self, folder: Path, *, check: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self._check = check
        self._store: MediaStore | None = None
        self._waiting: deque[tuple[int, str, Encoded, float]] = deque()
        self._bytes = 0
        self._forked = False
        forget_in_child(self)

    def forget(self) -> None:
        """Drop everything: a forked child must not write its parent's media."""
        self._forked = True
        self._waiting.clear()

    @property
    def is_full(self) -> bool:
        """Whether too much waits to be written."""
        return self._bytes > _MOST_WAITING

    def put(self, step: int, media: Mapping[str, Encoded]) -> None:
        """Queue the media of a step.

        Raises:
            MediaError: One of them is too large, or its name or step cannot be recorded; none is queued.
        """
        if self._forked:
            return
        for key, one in media.items():
            check_medium(one.kind, key, step, one.data, one.ending, one.caption)
        now = time.time()
        for key, one in media.items():
            self._waiting.append((step, key, one, now))
            self._bytes += len(one.data)

    def write(self) -> None:
        """Write what is queued; one thread at a time calls it.

        Raises:
            MediaError: The run has as many media as it can have; the medium is dropped.
            StorageError: The file system refused; the medium stays queued.
        """
        while self._waiting:
            entry = self._waiting.popleft()
            step, key, one, now = entry
            try:
                if self._store is None:
                    self._store = MediaStore(self._folder, check=self._check)
                self._store.add(one.kind, key, step, one.data, one.ending, time=now, caption=one.caption)
            except StorageError:
                self._waiting.appendleft(entry)
                raise
            self._bytes -= len(one.data)
