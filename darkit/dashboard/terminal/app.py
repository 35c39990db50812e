"""``darkit top``: a table of runs and a chart in a terminal, live. It reads and never writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import DataTable, Footer, Input, Static

from darkit.dashboard.charts.charts import Charts, curve
from darkit.dashboard.charts.colours import colour
from darkit.dashboard.charts.panels import titles_of
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.asked import record_of
from darkit.dashboard.reading.entries import Entry
from darkit.dashboard.reading.library import Library
from darkit.dashboard.terminal.plot import Drawn, draw
from darkit.dashboard.view import View
from darkit.errors import QueryError
from darkit.runs.inert import inert
from darkit.runs.numbers import LOST_MARK, number_text
from darkit.runs.query import parse
from darkit.runs.status import RUNNING

PERIOD = 1.0  # seconds between two looks at the runs
MOST_TICKED = 12
_STYLES = {"running": "green", "finished": "blue", "stopped": "yellow", "crashed": "red", "stalled": "magenta"}
_COLUMNS = ("", "state", "name", "step", "metric", "last", "best", "left", "tags")
_LONGEST = 60  # characters of a cell


@dataclass(frozen=True)
class _Looked:
    """What one look has found: all runs that are shown, and the curves of those in the chart."""

    entries: Sequence[Entry]
    running: int
    metrics: Sequence[str]
    curves: Sequence[tuple[str, Drawn, str]]  # name, curve and last value of each run in the chart
    x_title: str
    problem: str  # of the query


class Plot(Widget):
    """The chart."""

    curves: Sequence[Drawn] = ()
    log_scale = False
    x_title = "step"

    def render(self) -> Text:
        return draw(self.curves, self.size.width, self.size.height, log=self.log_scale, x_title=self.x_title)


class Top(App[None]):
    """The runs of a library.

    Args:
        library: The runs.
        place: Where they are, in words.
    """

    CSS = """
    #head, #legend, #reason { height: 1; padding: 0 1; }
    #head { background: $primary; color: $text; }
    #reason { color: $text-muted; }
    #runs { height: 1fr; }
    #plot { height: 1fr; min-height: 6; }
    #query { display: none; }
    #query.shown { display: block; }
    """
    ENABLE_COMMAND_PALETTE = False
    TITLE = "darkit top"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("space", "tick", "Compare"),
        ("m", "metric(1)", "Next metric"),
        ("n", "metric(-1)", "Previous metric"),
        ("l", "log", "Log scale"),
        ("a", "archived", "Archived"),
        ("slash", "search", "Search"),
        ("escape", "leave", "All runs"),
        ("j", "move(1)", ""),
        ("k", "move(-1)", ""),
        ("q", "quit", "Quit"),
    ]

    def __init__(self, library: Library, place: str) -> None:
        super().__init__()
        self._library = library
        self._charts = Charts(library)
        self._place = place
        self._query = ""
        self._ticked: dict[str, None] = {}
        self._current = ""
        self._metric = ""
        self._metrics: Sequence[str] = ()
        self._log_scale = self._archived = False
        self._rows: dict[str, tuple[Entry, bool, str]] = {}
        self._looking = self._again = False

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield DataTable(id="runs", cursor_type="row", cell_padding=1)
        yield Static(id="legend")
        yield Plot(id="plot")
        yield Static(id="reason")
        yield Input(id="query", placeholder="words, lr=3e-4, val_loss<0.3, state:crashed")
        yield Footer()

    def on_mount(self) -> None:
        table = self._table
        for name in _COLUMNS:
            table.add_column(name, key=name or "ticked")
        table.focus()
        self.set_interval(PERIOD, self.look)
        self.look()

    def look(self) -> None:
        """Look at the runs in a thread, and once more if something was asked for meanwhile."""
        if self._looking:
            self._again = True
            return
        self._looking, self._again = True, False
        self.run_worker(self._look, thread=True)

    def _look(self) -> None:
        _, entries = self._library.entries()
        if not self._archived:
            entries = [entry for entry in entries if not entry.row["archived"]]
        problem, shown = "", entries
        if self._query.strip():
            try:
                query = parse(self._query)
                query.check_names(self._library.config_keys(), [name for name, *_ in self._library.metrics()])
                shown = [entry for entry in shown if query.matches(record_of(entry))]
            except QueryError as error:
                problem = str(error)
        running = sum(1 for entry in entries if f'"state":"{RUNNING}"' in entry.text)
        names = list(self._ticked) or [self._current or (shown[0].name if shown else "")]
        found = self._charts.chosen([name for name in names if name], "log")
        metrics = titles_of(found)
        metric = self._metric if self._metric in metrics else next(iter(metrics), "")
        curves = [_curve(run, metric) for run in found if metric in run.series]
        titles = {run.series[metric][0] for run in found if metric in run.series}
        looked = _Looked(shown, running, metrics, curves, ", ".join(sorted(titles)), problem)
        self.call_from_thread(self._show, looked, metric)

    def _show(self, looked: _Looked, metric: str) -> None:
        if not all(self.query(part) for part in ("#head", "#runs", "#legend", "#plot", "#reason")):
            return  # the screen is closing meanwhile, one part after the other
        self._metrics = looked.metrics
        if self._metric not in looked.metrics:  # otherwise another one may have been asked for meanwhile
            self._metric = metric
        self._show_rows(looked.entries)
        head = f"darkit top  {self._place}  {len(looked.entries):,} runs, {looked.running:,} running"
        self.query_one("#head", Static).update(Text(inert(head)))
        legend = Text(inert(metric) + ("  (log)" if self._log_scale else ""), "bold")
        for name, drawn, last in looked.curves:
            legend.append(f"  ● {inert(name[:_LONGEST])} ", drawn.colour).append(last, "not bold")
        self.query_one("#legend", Static).update(legend)
        plot = self.query_one(Plot)
        plot.curves = [drawn for _, drawn, _ in looked.curves]
        plot.log_scale, plot.x_title = self._log_scale, inert(looked.x_title)
        plot.refresh()
        self._show_reason(looked.problem)
        self._looking = False
        if self._again:
            self.look()

    def _show_rows(self, entries: Sequence[Entry]) -> None:
        """Bring the table up to date: cells where only runs changed, all of it where runs came or went."""
        table = self._table
        wanted = {entry.name: (entry, entry.name in self._ticked, self._metric) for entry in entries}
        if list(wanted) != list(self._rows):
            table.clear()
            for name, (entry, ticked, metric) in wanted.items():
                table.add_row(*_cells(entry.row, ticked, metric), key=name)
            self._rows = wanted
            if self._current in wanted:
                table.move_cursor(row=list(wanted).index(self._current), animate=False)
            return
        for name, (entry, ticked, metric) in wanted.items():
            if self._rows[name] != (entry, ticked, metric):
                for column, cell in zip(table.columns, _cells(entry.row, ticked, metric), strict=True):
                    table.update_cell(name, column, cell, update_width=True)
        self._rows = wanted

    def _show_reason(self, problem: str) -> None:
        known = self._rows.get(self._current)
        row = known[0].row if known else {}
        said = problem or row.get("reason") or row.get("problem") or row.get("note") or ""
        self.query_one("#reason", Static).update(Text(inert(said), no_wrap=True, overflow="ellipsis"))

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one(DataTable)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        name = str(event.row_key.value) if event.row_key is not None and event.row_key.value is not None else ""
        if name and name != self._current:
            self._current = name
            self.look()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._query = event.value
        self.look()

    def on_input_submitted(self) -> None:
        self._table.focus()

    def action_tick(self) -> None:
        """Add the run at the cursor to the chart, or remove it."""
        if self._current in self._ticked:
            del self._ticked[self._current]
        elif self._current and len(self._ticked) < MOST_TICKED:
            self._ticked[self._current] = None
        elif self._current:
            self.notify(f"A chart shows at most {MOST_TICKED} runs.", severity="warning")
        self.look()

    def action_metric(self, step: int) -> None:
        """Show the next metric, or the one before."""
        if self._metrics:
            place = self._metrics.index(self._metric) if self._metric in self._metrics else 0
            self._metric = self._metrics[(place + step) % len(self._metrics)]
            self.look()

    def action_log(self) -> None:
        """Make y logarithmic, or linear again."""
        self._log_scale = not self._log_scale
        self.look()

    def action_archived(self) -> None:
        """Show archived runs too, or no longer."""
        self._archived = not self._archived
        self.look()

    def action_search(self) -> None:
        """Ask for a query."""
        field = self.query_one(Input)
        field.add_class("shown")
        field.focus()

    def action_leave(self) -> None:
        """Show all runs, and only the one at the cursor in the chart."""
        field = self.query_one(Input)
        field.value = ""
        field.remove_class("shown")
        self._ticked.clear()
        self._table.focus()
        self.look()

    def action_move(self, rows: int) -> None:
        """Move the cursor."""
        table = self._table
        if rows > 0:
            table.action_cursor_down()
        else:
            table.action_cursor_up()


def _curve(run: Shown, metric: str) -> tuple[str, Drawn, str]:
    found = curve(run, metric, View())
    last = found.y[-1] if len(found.y) else np.nan
    if len(found.odd_x) and (not len(found.x) or found.odd_x[-1] > found.x[-1]):
        last = found.odd_y[-1]
    shown = number_text(float(last)) if len(found.y) or len(found.odd_x) else ""
    return run.facts.name, Drawn(found.x, found.y, colour(run.index)), shown


def _cells(row: Mapping[str, Any], ticked: bool, metric: str) -> list[Text]:
    values: Mapping[str, Sequence[Any]] = row["series"]
    name = metric if metric in values else next(iter(values), "")
    last, best, *_ = values.get(name, ("", None))
    state = str(row["state"])
    lost = row["diverged"] is not None
    step = f"{row['step']:,}" + (f"/{row['max_step']:,}" if row["max_step"] else "")
    return [
        Text("●" if ticked else " "),
        Text(inert("diverged" if lost else state)[:_LONGEST], "red" if lost else _STYLES.get(state, "")),
        Text(inert(row["name"])[:120]),
        Text(step, justify="right"),
        Text(inert(name)[:_LONGEST], "dim"),
        Text(last if isinstance(last, str) else number_text(last), justify="right"),
        Text(number_text(best) + (LOST_MARK if lost and best is not None else ""), justify="right"),
        Text("" if row["eta"] is None else _time(row["eta"]), justify="right"),
        Text(inert(", ".join(row["tags"]))[:_LONGEST], "dim"),
    ]


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min" if minutes else "< 1 min"
