"""The speed of a training, measured from its first completed step."""

from __future__ import annotations

import time
from collections.abc import Callable

_INTERVAL = 0.25  # seconds between measurements, at most
_ACCURACY = 0.1  # maximum relative error of a displayed rate


class Rate:
    """Steps per second, without the first step, which includes compilation and the start of workers.

    Args:
        progress: Returns the last completed step.
        clock: Returns seconds; by default a monotonic clock.
    """

    def __init__(self, progress: Callable[[], int], clock: Callable[[], float] | None = None) -> None:
        self._progress = progress
        self._clock = clock or time.monotonic
        self._start = progress()
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def measure(self) -> None:
        """Record the time if steps were completed since the last call."""
        step = self._progress()
        if step <= self._start:
            return
        if self._first is None:
            self._first = self._last = (self._clock(), step)
        elif self._last is not None and step > self._last[1]:
            self._last = (self._clock(), step)

    @property
    def value(self) -> float | None:
        """Steps per second, or None until it is known accurately enough."""
        if self._first is None or self._last is None:
            return None
        seconds, steps = self._last[0] - self._first[0], self._last[1] - self._first[1]
        late = min(_INTERVAL, seconds / steps) if steps else 0.0  # maximum delay of a measurement
        return steps / seconds if steps and seconds > 0 and late <= _ACCURACY * seconds else None


def speed(rate: float | None) -> str:
    """Format a rate as steps per second, or seconds per step for slow steps; empty for None."""
    if rate is None:
        return ""
    return f"{1 / rate:.1f} s/step" if 0 < rate < 0.95 else f"{rate:.1f} steps/s"


def duration(seconds: float) -> str:
    """Format seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
