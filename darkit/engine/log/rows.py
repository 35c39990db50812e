"""A queue of log rows from the training loop, written in blocks by another thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any, Protocol

import torch
from torch import Tensor

from darkit.engine.device import widest_float
from darkit.engine.log.media import Encoded
from darkit.engine.log.media_log import MediaLog
from darkit.engine.log.values import number_of
from darkit.errors import LogError, StorageError, first_error
from darkit.runs.forks import forget_in_child
from darkit.runs.log import CsvLog

_INTERVAL = 0.25  # seconds between blocks
_MOST_WAITING = 50_000  # rows; beyond that, the training waits for the sinks
_PLAIN = frozenset({float, int, bool, str, NoneType})  # what the sinks take as it is


class Sink(Protocol):
    """A receiver of rows in blocks, on the stream's thread."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows since the last call, possibly none."""

    def close(self) -> None:
        """Close the sink; nothing is written afterwards."""


class RowStream:
    """Pass rows from the training thread to the log and to sinks, at most half a second late.

    An error in the thread is raised by the next call of any method, once; the thread tries again.

    Args:
        log: The CSV log; media go into its folder.
        sinks: Further receivers of the rows.
        check: Called before every block; if it raises, the block is not written.
    """

    def __init__(self, log: CsvLog, sinks: Sequence[Sink] = (), *, check: Callable[[], None] = lambda: None) -> None:
        self.log = log
        self._check = check
        self.media = MediaLog(log.path.parent, check=check)
        self.watches: list[Callable[[], None]] = []
        self._sinks = list(sinks)
        self._rows: deque[dict[str, Any]] = deque()
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._closed = False
        self._forked = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="darkit-log", daemon=True)
        self._thread.start()
        forget_in_child(self)

    def forget(self) -> None:
        """Drop all rows: a forked child must not write its parent's rows again."""
        self._forked = self._closed = True
        self._rows.clear()
        self._sinks.clear()

    def add(self, sinks: Sequence[Sink]) -> None:
        """Add sinks for future rows."""
        with self._writing:
            self._sinks.extend(sinks)

    def put(self, row: dict[str, Any]) -> None:
        """Queue one row of numbers, text or tensors with one element, which are read later.

        Raises:
            LogError: The row has a column that a fixed log lacks, a number is complex or too large for a float, or the
                log is closed.
        """
        if self._error is not None:
            self._raise()
        if self._forked:
            return
        if self._closed:
            raise LogError("The log is closed: the run has ended.")
        self.log.check(row)
        for name, value in row.items():
            if type(value) is not float and value is not None and not isinstance(value, str):
                number_of(name, value)
        self._queue(row)

    def put_checked(self, row: dict[str, Any], *, raises: bool = True) -> None:
        """Queue a row whose columns and values the caller has checked.

        If it ``raises`` an error of the thread, the row is not queued.
        """
        if raises and self._error is not None:
            self._raise()
        if not self._forked:
            self._queue(row)

    def put_media(self, step: int, media: Mapping[str, Encoded]) -> None:
        """Queue the media of a step, as `darkit.engine.log.media.split` returns them.

        Raises:
            MediaError: One is too large, or cannot be recorded; none is queued.
            LogError: The log is closed.
        """
        if self._error is not None:
            self._raise()
        if self._closed and not self._forked:
            raise LogError("The log is closed: the run has ended.")
        self.media.put(step, media)
        if self.media.is_full:
            self.flush()

    def _queue(self, row: dict[str, Any]) -> None:
        if len(self._rows) >= _MOST_WAITING:
            self.flush()
        self._rows.append(row)

    def flush(self) -> None:
        """Write all queued rows and call the watches."""
        self._raise()
        if not self._forked:
            self._write()

    def close(self) -> None:
        """Write the remaining rows and close all sinks, even if one fails."""
        if self._closed:
            return
        self._closed = True
        self._ended.set()
        failure: BaseException | None = None
        for end in (self._thread.join, self._raise, self._write, *(sink.close for sink in self._sinks)):
            try:
                end()
            except BaseException as error:
                failure = first_error(failure, error, "log")
        if failure is not None:
            raise failure

    def _work(self) -> None:
        told = ""
        while not self._ended.wait(_INTERVAL):
            try:
                self._write()
                told = ""
            except BaseException as error:
                if repr(error) != told:
                    told, self._error = repr(error), error

    def _write(self) -> None:
        self._check()
        with self._writing:
            rows = [self._rows.popleft() for _ in range(len(self._rows))]
            if rows:
                rows = _with_numbers(rows)
                try:
                    self.log.append(rows)
                except StorageError:
                    self._check()  # a clearer error if the folder is gone
                    self._rows.extendleft(reversed(rows))  # keep the order for a retry
                    raise
            for sink in self._sinks:
                sink.write(rows)
            self.media.write()
        for watch in self.watches:
            watch()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _with_numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace tensors by numbers, with one copy from each accelerator, in double precision if supported."""
    if _PLAIN.issuperset(map(type, chain.from_iterable(map(dict.values, rows)))):
        return rows
    remote: dict[torch.device, list[Tensor]] = {}
    for row in rows:
        for value in row.values():
            if isinstance(value, Tensor) and value.device.type != "cpu":
                remote.setdefault(value.device, []).append(value)
    numbers: dict[int, float] = {}
    for device, values in remote.items():
        widest = widest_float(device)
        copied = torch.stack([value.detach().reshape(()).to(widest) for value in values]).tolist()
        numbers |= {id(value): number for value, number in zip(values, copied, strict=True)}
    return [
        row | {key: _number(value, numbers) for key, value in row.items() if type(value) not in _PLAIN} for row in rows
    ]


def _number(value: Any, numbers: dict[int, float]) -> Any:
    if id(value) in numbers:
        return numbers[id(value)]
    number = number_of("", value)
    return value if number is None else number.item() if isinstance(number, Tensor) else number
