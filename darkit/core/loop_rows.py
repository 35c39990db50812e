"""The rows of a loop that somebody else wrote: the values of all calls of one step, checked when they come."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from darkit.engine.log.media import Encoded, encode
from darkit.engine.log.rows import RowStream
from darkit.engine.log.values import snapshot
from darkit.errors import ConfigError, LogError
from darkit.runs.log import MOST_COLUMNS
from darkit.runs.media import check_medium
from darkit.runs.records import check_column

_PLAIN = frozenset((float, bool, type(None)))  # values that are logged as they are
_LARGEST = 2**53
_OWN = ("step", "time")
_NO_METRICS = frozenset(("step", "epoch", "time", "lr"))
_LONGEST_TEXT = 10_000  # characters of a text in a column
_IDLE = 10.0  # seconds after which a row is written although its step may get more values


class LoopRows:
    """Collect the row of a step, and hand it to the log's thread when the next one begins.

    A row that gets no more values for ten seconds is handed over too; what is logged for its step later becomes a row
    of its own.

    Args:
        stream: The log.
        lock: Held by those who call the methods.

    Attributes:
        row: The row of the current step, or None if it is handed over.
        step: The step of the last row, or -1.
        media: The media of the values that were checked last.
        touched: Whether the row got values since the log's thread looked last; whoever adds some sets it.
    """

    def __init__(self, stream: RowStream, lock: threading.RLock) -> None:
        self.row: dict[str, Any] | None = None
        self.step = -1
        self.touched = False
        self.media: dict[str, Encoded] = {}
        self._stream = stream
        self._lock = lock
        self._known: frozenset[str] = frozenset()
        self._written: dict[str, Any] = {}  # values of the step that are handed over
        self._idle_since = 0.0
        stream.watches.append(self._put_if_idle)

    def checked(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values as they are now: numbers, text, and copies of tensors on accelerators.

        Raises:
            LogError: A column or a value does not fit.
        """
        if type(values) is not dict and not isinstance(values, Mapping):
            raise LogError(f"log() takes a dict of values by column, not {type(values).__name__}.")
        if not self._known.issuperset(values):
            self._check_columns(values)
        for value in values.values():
            if type(value) not in _PLAIN:
                media: dict[str, Encoded] = {}
                values = _converted(values, media)
                self.media = media
                return values
        return values

    def put_media(self) -> None:
        """Hand the media of the last checked values over. Raises `MediaError`."""
        media, self.media = self.media, {}
        self._stream.put_media(self.step, media)

    def begin(self, step: int) -> dict[str, Any]:
        """Begin the row of a step, and return it."""
        self.put()
        if step != self.step:
            self._written = {}
        self.step = step
        self.row = row = {"step": step, "time": time.time()}
        return row

    def put(self, *, raises: bool = True) -> None:
        """Hand the row over; if it ``raises`` an earlier error of the log's thread, keep it for the next call."""
        if self.row is not None:
            self._stream.put_checked(self.row, raises=raises)
            self.row = None

    def flush(self) -> None:
        """Wait until all rows that were handed over are written. Raises `StorageError`."""
        self._stream.flush()

    def numbers(self, step: int) -> dict[str, Any]:
        """Return all values that are logged for a step so far, read from the accelerator."""
        if self.step != step:
            return {}
        if self.row is not None:
            self.row = {key: value.tolist() if isinstance(value, Tensor) else value for key, value in self.row.items()}
        return {**self._written, **(self.row or {})}

    def _check_columns(self, values: Mapping[str, Any]) -> None:
        new = [name for name in values if name not in self._known]
        for name in new:
            check_column(name)
            if name in _OWN:
                raise LogError(
                    f"darkit fills the column {name!r} itself: give the step as step=, and a time under another name."
                )
        if len(self._known) + len(new) > MOST_COLUMNS - len(_OWN):
            raise LogError(f"A log can have {MOST_COLUMNS} columns; {new[0]!r} is one too many.")
        self._known = self._known.union(new)

    def _put_if_idle(self) -> None:
        """Called by the log's thread."""
        with self._lock:
            now = time.monotonic()
            if self.row is None or self.touched:
                self.touched, self._idle_since = False, now
            elif now - self._idle_since > _IDLE:
                self._written = {**self._written, **self.row}
                self.put(raises=False)  # it is the loop that must hear of an error


def metrics_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in the values of a row that describe the training."""
    numbers = {key: value for key, value in values.items() if key not in _NO_METRICS}
    return {key: float(value) for key, value in numbers.items() if isinstance(value, float | int)}


def whole_step(step: Any, error: type[ConfigError] | type[LogError]) -> int:
    """Return a step as a number. Raises ``error``."""
    if type(step) is int and 0 <= step < 2**63:
        return step
    try:
        found = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        found = -1
    if not 0 <= found < 2**63:
        raise error(f"step must be a whole number of at least 0, not {step!r}.")
    return found


def check_step(name: str, step: int, first: int, last: int) -> None:
    """Raise `LogError` for a step of a run's loop before the one that it resumes at, or before the last one."""
    if step < first:
        raise LogError(
            f"The run {name!r} resumes after step {first - 1}, so its loop must start at step {first}, not {step}: "
            "run.restore(...) returns the step to start after."
        )
    if step < last:
        raise LogError(
            f"log(step={step}) is before step {last}: steps must not decrease. Use one count of steps for all values, "
            "and log another count as a column."
        )


def _converted(values: Mapping[str, Any], media: dict[str, Encoded]) -> dict[str, Any]:
    """Return the values of a row, and add the others to the media."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        kind = type(value)
        if kind in _PLAIN or (kind is int and -_LARGEST < value < _LARGEST):
            found[name] = value
        elif isinstance(value, str):
            if len(value) > _LONGEST_TEXT:
                raise LogError(
                    f"The text {name!r} has {len(value)} characters, more than {_LONGEST_TEXT}: give darkit.Text."
                )
            found[name] = str(value)
        elif (number := snapshot(name, value)) is not None:
            found[name] = number
        elif (encoded := encode(name, value)) is not None:
            check_medium(encoded.kind, name, 0, encoded.data, encoded.ending, encoded.caption)
            media[name] = encoded
        else:
            shape = getattr(value, "shape", None)
            what = kind.__name__ if shape is None else f"{kind.__name__} of the shape {tuple(shape)}"
            raise LogError(
                f"{name!r} must be a number, a tensor of one element, a short text or a medium such as darkit.Image, "
                f"not a {what}."
            )
    return found
