"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

_REDRAW = 0.5  # seconds
_WIDE = 100  # characters; on a narrower terminal the labels are short
_NARROW = 72  # characters; below, only steps and losses are shown


class Screen(Console):
    """Standard error, for people. When nobody reads it any more it falls silent instead of ending the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"stderr": True, "highlight": False, **options})

    def on_broken_pipe(self) -> None:
        """Falls silent."""
        self.quiet = True


class Display:
    """Shows step, loss, rate and time left. A screen that cannot be written to is given up: the run is worth more.

    Args:
        max_step: The step at which the run ends.
        progress: Returns the last completed step.
        console: Where to; by default standard error.
    """

    def __init__(self, max_step: int, progress: Callable[[], int], console: Console | None = None) -> None:
        self._console = console or Screen()
        self._max_step = max_step
        self._progress = progress
        self._first = (time.monotonic(), progress())
        self._drawn = 0.0
        self._values: dict[str, float] = {}
        self._bar: Progress | None = None
        self._wide = self._console.width >= _WIDE
        if self._console.is_terminal:
            count = MofNCompleteColumn(table_column=Column(no_wrap=True))  # the bar is what gives way
            columns = [count, BarColumn(), TextColumn("{task.fields[loss]}")]
            if self._wide:
                columns.insert(0, TextColumn("step"))
            if self._console.width >= _NARROW:
                columns += [TextColumn("{task.fields[rate]}"), TextColumn("left")]
                columns += [TimeRemainingColumn(table_column=Column(no_wrap=True))]
            self._bar = Progress(*columns, console=self._console, auto_refresh=False)
            self._task = self._bar.add_task("", total=max_step, completed=progress(), loss="", rate="")
            self._bar.start()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Redraws the bar when it is time, or prints a line per row."""
        if self._progress() == self._first[1]:  # until the first step is done, nothing is a step's time
            self._first = (time.monotonic(), self._first[1])
        with self._given_up_if_gone():
            if self._bar is None:
                self._print_lines(rows)
                return
            for row in rows:
                self._values.update(_losses(row))
            if time.monotonic() - self._drawn > _REDRAW:
                self._draw(self._bar)

    def close(self) -> None:
        """Leaves the bar as it ended."""
        with self._given_up_if_gone():
            if self._bar is not None:
                self._draw(self._bar)
                self._bar.stop()

    @contextmanager
    def _given_up_if_gone(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # the terminal went away, or somebody closed the file
            self._console.quiet = True

    def rate(self) -> float:
        """Returns the steps per second so far."""
        started, first = self._first
        return (self._progress() - first) / max(1e-9, time.monotonic() - started)

    def _print_lines(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Prints all lines at once, past the console: what lays out a line for a terminal takes longer than a step."""
        if rows and not self._console.quiet:
            self._console.file.write("".join(f"{self._line(row)}\n" for row in rows))
            self._console.file.flush()

    def _draw(self, bar: Progress) -> None:
        self._drawn = time.monotonic()
        labels = {key: key if self._wide else key.removesuffix("_loss") for key in self._values}
        loss = " ".join(f"{labels[key]} {value:.4g}" for key, value in self._values.items())
        bar.update(self._task, completed=self._progress(), loss=loss, rate=f"{self.rate():.1f} steps/s")
        bar.refresh()

    def _line(self, row: Mapping[str, Any]) -> str:
        step = row.get("step", self._progress())
        rate = self.rate()
        parts = [f"step {step}/{self._max_step}"]
        parts += [f"{key} {value:.4g}" for key, value in _losses(row).items()]
        if rate and isinstance(step, int):
            parts += [f"{rate:.1f} steps/s", f"{_duration((self._max_step - step) / rate)} left"]
        return "  ".join(parts)


def _losses(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: row[key] for key in ("train_loss", "val_loss") if isinstance(row.get(key), float | int)}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def announce(text: str) -> None:
    """Prints a line for the person at the terminal, before the display begins."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
