"""What the process prints, kept in ``console.log`` while the run is open.

Standard output and standard error are observed where Python writes to them: the ``write`` of the two stream objects is
wrapped, and the objects, their file descriptors and what the terminal shows stay the same. So progress bars still see a
terminal, notebooks and pytest work, and handlers of `logging` that hold the stream are heard too. What programs and
libraries in C write past Python is not kept; to redirect the descriptors would take the terminal away from the process.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darkit.engine.log.folding import Folding
from darkit.errors import RunReplacedError, StorageError
from darkit.runs.console import ConsoleLog
from darkit.runs.forks import forget_in_child

logger = logging.getLogger(__name__)
_MOST_WAITING = 8 * 2**20  # characters between two writes
_taps: list[_Tap] = []


class _Tap:
    """The wrapped ``write`` of one stream, with those who hear what is written."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.listeners: tuple[Callable[[str], None], ...] = ()
        self._own = vars(stream).get("write")  # of somebody else who wraps it
        self._before: Callable[[Any], Any] = stream.write
        stream.write = self.write

    def write(self, text: Any) -> Any:
        """Write, and tell the listeners."""
        written = self._before(text)
        if isinstance(text, str):
            for listener in self.listeners:
                listener(text)
        return written

    def remove(self) -> bool:
        """Restore the stream's own ``write``; return False if somebody else has wrapped this one since."""
        if vars(self.stream).get("write") != self.write:
            return False
        if self._own is None:
            del self.stream.write
        else:
            self.stream.write = self._own
        return True


def _listen(listener: Callable[[str], None]) -> list[_Tap]:
    """Tell a listener what is written to standard output and standard error from now on."""
    found = []
    for stream in {id(one): one for one in (sys.stdout, sys.stderr) if one is not None}.values():
        tap = next((one for one in _taps if one.stream is stream), None)
        if tap is None:
            try:
                tap = _Tap(stream)
            except (AttributeError, TypeError):  # an object that takes no attribute cannot be heard
                continue
            _taps.append(tap)
        tap.listeners = (*tap.listeners, listener)
        found.append(tap)
    return found


def _unlisten(listener: Callable[[str], None], taps: list[_Tap]) -> None:
    for tap in taps:
        tap.listeners = tuple(one for one in tap.listeners if one != listener)
        if not tap.listeners and tap.remove():
            _taps.remove(tap)


class Console:
    """Records what the process prints from now on; the status's thread calls `write`.

    Args:
        folder: The run directory.
        check: Called before each write; if it raises `RunReplacedError`, nothing is written.
        resumed_after: The step that the run resumes after, which a line then says; or None.
    """

    def __init__(
        self, folder: Path, *, check: Callable[[], None] = lambda: None, resumed_after: int | None = None
    ) -> None:
        self._log = ConsoleLog(folder)
        self._check = check
        self._folding = Folding()
        self._waiting: deque[str] = deque()
        self._size = self._lost = 0
        self._text = "" if resumed_after is None else f"... resumed after step {resumed_after} ...\n"
        self._warned = False
        self._writing = threading.Lock()
        self._taps = _listen(self._hear)
        forget_in_child(self)

    def forget(self) -> None:
        """Hear nothing more: what a forked child prints is not recorded."""
        _unlisten(self._hear, self._taps)
        self._taps = []
        self._waiting.clear()
        self._writing = threading.Lock()  # another thread of the parent may hold the old one for ever

    def write(self) -> None:
        """Write the lines that are complete; warn once if the file system refuses, and try again."""
        with self._writing:
            self._fold()
            self._text += self._folding.take()
            self._append()

    def close(self) -> None:
        """Stop listening, and write the rest."""
        _unlisten(self._hear, self._taps)
        with self._writing:
            self._fold()
            self._text += self._folding.take(everything=True)
            self._append()

    def _hear(self, text: str) -> None:
        if self._size > _MOST_WAITING:
            self._lost += len(text)
            return
        self._waiting.append(text)
        self._size += len(text)

    def _fold(self) -> None:
        for _ in range(len(self._waiting)):
            text = self._waiting.popleft()
            self._size -= len(text)
            self._folding.feed(text)
        if self._lost:
            lost, self._lost = self._lost, 0
            self._folding.feed(f"\n... {lost:,} characters left out ...\n")

    def _append(self) -> None:
        if not self._text:
            return
        try:
            self._check()
            self._log.append(self._text)
        except RunReplacedError:
            return
        except StorageError as error:
            self._text = self._text[-_MOST_WAITING:]
            if not self._warned:
                self._warned = True
                logger.warning("The console of the run cannot be recorded: %s", error)
            return
        self._text = ""
