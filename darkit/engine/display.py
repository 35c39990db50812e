"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_REDRAW = 0.5  # seconds


class Display:
    """Shows step, loss, rate and time left.

    Args:
        max_step: The step at which the run ends.
        progress: Returns the last completed step.
        console: Where to; by default standard error.
    """

    def __init__(self, max_step: int, progress: Callable[[], int], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._max_step = max_step
        self._progress = progress
        self._first = (time.monotonic(), progress())
        self._drawn = 0.0
        self._values: dict[str, float] = {}
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[loss]}"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("", total=max_step, completed=progress(), loss="", rate="")
            self._bar.start()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Redraws the bar when it is time, or prints a line per row."""
        for row in rows:
            self._values.update({key: row[key] for key in ("train_loss", "val_loss") if row.get(key) is not None})
            if self._bar is None:
                self._console.print(self._line(row), soft_wrap=True, markup=False)
        if self._bar is not None and time.monotonic() - self._drawn > _REDRAW:
            self._draw()

    def close(self) -> None:
        """Leaves the bar as it ended."""
        if self._bar is not None:
            self._draw()
            self._bar.stop()

    def rate(self) -> float:
        """Returns the steps per second so far."""
        started, first = self._first
        return (self._progress() - first) / max(1e-9, time.monotonic() - started)

    def _draw(self) -> None:
        assert self._bar is not None
        self._drawn = time.monotonic()
        loss = " ".join(f"{key} {value:.4g}" for key, value in self._values.items())
        self._bar.update(self._task, completed=self._progress(), loss=loss, rate=f"{self.rate():.1f} steps/s")
        self._bar.refresh()

    def _line(self, row: Mapping[str, Any]) -> str:
        step = row.get("step", self._progress())
        rate = self.rate()
        parts = [f"step {step}/{self._max_step}"]
        parts += [
            f"{key} {row[key]:.4g}" for key in ("train_loss", "val_loss") if isinstance(row.get(key), float | int)
        ]
        if rate and isinstance(step, int):
            parts += [f"{rate:.1f} steps/s", f"{_duration((self._max_step - step) / rate)} left"]
        return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
