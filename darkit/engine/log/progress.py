"""The progress of a training: a bar on a terminal, a live chart in a notebook, a few lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from darkit.engine.log.notebook import NotebookView, in_notebook
from darkit.engine.log.rate import Rate, duration, speed
from darkit.runs.inert import inert

logger = logging.getLogger(__name__)

_REDRAW = 0.5  # seconds
_REDRAW_NOTEBOOK = 1.0  # seconds
_LINE_INTERVAL = 5.0  # seconds between lines where there is no terminal
_WIDE = 100  # characters; on a narrower terminal the labels are short
_NARROW = 72  # characters; below, only steps and losses are shown


class Screen(Console):
    """A console on standard error. On a broken pipe it goes quiet instead of ending the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"stderr": True, "highlight": False, **options})

    def on_broken_pipe(self) -> None:
        """Go quiet."""
        self.quiet = True


class Display:
    """Display step, loss, rate and time left. Errors of the terminal are ignored, so that the training continues.

    On a terminal it redraws a bar, in a notebook a cell output with a chart. Elsewhere, such as in a file, it prints
    the first row, then at most one line every few seconds, then the last row.

    Args:
        max_step: The step at which the run ends, None if it is not known, or what returns it.
        progress: Returns the last completed step.
        console: The console; by default standard error, or the notebook's cell.
    """

    def __init__(
        self,
        max_step: int | Callable[[], int | None] | None,
        progress: Callable[[], int],
        console: Console | None = None,
    ) -> None:
        self._console = console or Screen()
        self._end = max_step
        self._progress = progress
        self._rate = Rate(progress)
        self._drawn = 0.0
        self._row: Mapping[str, Any] = {}
        self._values: dict[str, float] = {}
        self._printed: float | None = None
        self._pending = False
        self._bar: Progress | None = None
        self._notebook: NotebookView | None = None
        self._wide = self._console.width >= _WIDE
        if console is None and in_notebook():
            with self._ignoring_lost_terminal():
                self._notebook = NotebookView(self._max_step)
                self._draw_notebook(self._notebook)
        elif self._console.is_terminal:
            self._bar = self._make_bar()

    @property
    def _max_step(self) -> int | None:
        return self._end() if callable(self._end) else self._end

    def _make_bar(self) -> Progress:
        count = MofNCompleteColumn(table_column=Column(no_wrap=True))  # the bar shrinks instead
        columns = [count, BarColumn(), TextColumn("{task.fields[loss]}")]
        if self._wide:
            columns.insert(0, TextColumn("step"))
        if self._console.width >= _NARROW:
            columns += [TextColumn("{task.fields[rate]}"), TextColumn("left")]
            columns += [TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True))]
        bar = Progress(*columns, console=self._console, auto_refresh=False)
        self._task = bar.add_task("", total=self._max_step, completed=self._progress(), loss="", rate="", left="")
        bar.start()
        return bar

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Redraw or print a line, if it is time."""
        self._rate.measure()
        with self._ignoring_lost_terminal():
            self._add(rows)
            since = time.monotonic() - self._drawn
            if self._bar is not None:
                if since > _REDRAW:
                    self._draw(self._bar)
            elif self._notebook is not None:
                if since > _REDRAW_NOTEBOOK:
                    self._draw_notebook(self._notebook)
            elif self._pending and (self._printed is None or time.monotonic() - self._printed > _LINE_INTERVAL):
                self._print_line()

    def close(self) -> None:
        """Draw the final state."""
        self._rate.measure()
        with self._ignoring_lost_terminal():
            if self._bar is not None:
                self._draw(self._bar)
                self._bar.stop()
            elif self._notebook is not None:
                self._draw_notebook(self._notebook)
            elif self._pending:
                self._print_line()

    @contextmanager
    def _ignoring_lost_terminal(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # the terminal or file was closed
            self._console.quiet = True

    def _add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._notebook is not None:
            for row in rows:
                self._notebook.add(row.get("step", self._progress()), _losses([row]))
        elif rows and self._bar is None and self._printed is None:
            self._keep(rows[:1])
            self._print_line()
            rows = rows[1:]
        self._keep(rows)

    def _keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Remember what the next drawing shows."""
        if rows:
            self._row, self._pending = rows[-1], True
            self._values.update(_losses(rows))

    def _print_line(self) -> None:
        """Print without the console, whose layout takes longer than a step."""
        self._printed, self._pending = time.monotonic(), False
        line, self._values = self._line(self._row), {}
        if not self._console.quiet:
            self._console.file.write(f"{line}\n")
            self._console.file.flush()

    def _draw(self, bar: Progress) -> None:
        self._drawn = time.monotonic()
        step = self._progress()
        labels = {key: key if self._wide else key.removesuffix("_loss") for key in self._values}
        loss = " ".join(f"{labels[key]} {value:.4g}" for key, value in self._values.items())
        bar.update(
            self._task,
            total=self._max_step,
            completed=step,
            loss=loss,
            rate=speed(self._rate.value),
            left=self._left(step),
        )
        bar.refresh()

    def _draw_notebook(self, view: NotebookView) -> None:
        self._drawn = time.monotonic()
        step = self._progress()
        try:
            view.max_step = self._max_step
            view.show(step, [*_shown(self._values), *self._pace(step)])
        except Exception as error:  # a kernel without a client may raise anything
            self._notebook = None
            logger.warning("The notebook's output can no longer be updated: %s", error)

    def _line(self, row: Mapping[str, Any]) -> str:
        step = row.get("step", self._progress())
        whole = "" if self._max_step is None else f"/{self._max_step}"
        parts = [f"step {step}{whole}", *_shown(self._values)]
        if isinstance(step, int):
            parts += self._pace(step)
        return "  ".join(parts)

    def _pace(self, step: int) -> list[str]:
        """Return rate and time left, if known."""
        if not self._rate.value:
            return []
        return [speed(self._rate.value), *([] if self._max_step is None else [f"{self._left(step)} left"])]

    def _left(self, step: int) -> str:
        end = self._max_step
        return "-:--:--" if end is None or not self._rate.value else duration((end - step) / self._rate.value)


def _shown(values: Mapping[str, float]) -> list[str]:
    return [f"{key} {value:.4g}" for key, value in values.items()]


def _losses(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the latest losses of rows."""
    found: dict[str, float] = {}
    for key in ("train_loss", "val_loss"):
        for row in reversed(rows):
            if isinstance(row.get(key), float | int):
                found[key] = row[key]
                break
    return found


_speaks = True


def announce(text: str) -> None:
    """Print a line to the terminal, before the display starts."""
    if _speaks:
        Screen().print(inert(text, lines=True), markup=False, soft_wrap=True)


@contextmanager
def speaking(does: bool) -> Iterator[None]:
    """Set for a block whether this process announces anything: of several that train together only the first does."""
    global _speaks
    before, _speaks = _speaks, does
    try:
        yield
    finally:
        _speaks = before
