"""The charts of a page: the series of the selected runs, their figures, and updates."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from darkit.dashboard.charts.curves import EMPTY, Curve, band_of, curve_of, odd_of, position_of
from darkit.dashboard.charts.downsample import MOST_POINTS, memory_of, pick
from darkit.dashboard.charts.figures import GroupBand, Line, chart_figure, inert, numbers, odd_words, robust_scale
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.machine import measure
from darkit.dashboard.reading.rows import pace, usable_series
from darkit.dashboard.reading.tail import Table
from darkit.dashboard.texts import text
from darkit.dashboard.view import MOST_CHARTS, View
from darkit.errors import DarkitError
from darkit.runs.checkpoints import checkpoint_steps
from darkit.runs.status import ALIVE

_MARKED_RUNS = 20
_MARKS = 60  # checkpoints per curve on the screen; a zoom shows the others
_LEAST_NEW = 4
_MOST_NEW = 120  # points per curve and update
_CACHED = 64 * 2**20  # bytes of answers
_MOST_TOGETHER = 20_000  # points of all curves of a chart: more cost the browser time and show nothing
_FEWEST = 500  # points per curve, however many curves there are


@dataclass(frozen=True)
class Shown:
    """A run whose curves are shown. Its index among the selected ones is its colour."""

    index: int
    facts: Facts
    table: Table
    series: Mapping[str, list[str]]


class Charts:
    """Answer the requests of a page's charts."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._answers: OrderedDict[str, tuple[Any, bytes]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def chosen(self, names: Sequence[str], source: str) -> list[Shown]:
        """Read the selected runs, without those that no longer exist."""
        found = []
        for index, name in enumerate(names):
            try:
                found.append((index, self._library.facts(name)))
            except DarkitError:  # deleted; the page sees that it is missing
                continue
        tables = self._library.logs((facts for _, facts in found), source)
        return [
            Shown(index, facts, table, _series(facts, table, source))
            for (index, facts), table in zip(found, tables, strict=True)
        ]

    def draw(self, names: Sequence[str], view: View, wanted: Sequence[str] | None) -> bytes:
        """Return figures as JSON: of the wanted charts, or, for None, of the first two, with the list of all."""
        shown = self.chosen(names, view.source)
        key = json.dumps([names, view.__dict__, wanted])
        state = [
            (run.index, run.table.generation, run.table.rows, run.facts.state, run.facts.notes.tags) for run in shown
        ]
        with self._lock:
            known = self._answers.get(key)
            if known is not None and known[0] == state:
                self._answers.move_to_end(key)
                return known[1]
        answer = json.dumps(self._draw(shown, view, wanted)).encode()
        with self._lock:
            self._size += len(answer) - len(self._answers.pop(key, (None, b""))[1])
            self._answers[key] = (state, answer)
            while self._size > _CACHED:
                _, (_, oldest) = self._answers.popitem(last=False)
                self._size -= len(oldest)
        return answer

    def _draw(self, shown: Sequence[Shown], view: View, wanted: Sequence[str] | None) -> dict[str, Any]:
        titles = titles_of(shown)[:MOST_CHARTS]
        drawn = titles[:2] if wanted is None else [title for title in titles if title in set(wanted)]
        return {
            "charts": [{"id": title, "title": heading(title, view)} for title in titles],
            "figures": {title: self.figure(title, shown, view) for title in drawn},
            "cursors": {run.facts.name: [run.table.generation, run.table.rows] for run in shown},
            "runs": {run.facts.name: state_of(run) for run in shown},
            "groups": [
                {"label": label, "index": index, "runs": [run.facts.name for run in members]}
                for index, (label, members) in enumerate(groups_of(shown, view))
            ],
        }

    def figure(self, title: str, shown: Sequence[Shown], view: View) -> dict[str, Any]:
        """Draw one series of the selected runs."""
        lines, bands, scales = [], [], []
        with_series = [run for run in shown if title in run.series]
        marked = len(with_series) <= _MARKED_RUNS and view.source == "log"
        groups = groups_of(with_series, view)
        colours = {label: index for index, (label, _) in enumerate(groups_of(shown, view))}
        single: Sequence[tuple[str | None, Shown]] = (
            [(None, run) for run in with_series]
            if not view.group
            else [(label, run) for label, members in groups if label in view.unfold for run in members]
        )
        most = points_each(len(single) * (2 if view.smooth else 1))
        for label, run in single:
            raw = _curve(run, title, view)
            smoothed = raw.smoothed(view.smooth).within(view.low, view.high) if view.smooth else None
            raw = raw.within(view.low, view.high)
            scales.append(raw.y)
            lines.append(
                Line(
                    run.facts.name,
                    run.index if label is None else colours[label],
                    raw.thinned(most),
                    smoothed.thinned(most) if smoothed is not None else None,
                    checkpoint_marks(run, run.series[title][0], view) if marked else (),
                    faint=label is not None,
                )
            )
        for label, members in groups:
            curves = [_curve(run, title, view).smoothed(view.smooth).within(view.low, view.high) for run in members]
            band = band_of(curves)
            scales.extend([band.mean])
            odd = EMPTY if label in view.unfold else odd_of(curves)  # an unfolded run has its own marks
            bands.append(GroupBand(label, colours[label], len(members), band, odd))
        scale = robust_scale(scales, view.log) if view.robust else None
        own = {run.series[title][0] for run in with_series}
        x_title = text(view.language, f"axis_{view.axis}") if view.axis != "step" or own <= {"step"} else ", ".join(own)
        if view.source == "system" and measure(title, view.language).percent:
            scale = (0.0, 102.0)
        return chart_figure(heading(title, view), lines, bands, view, scale, x_title)

    def news(
        self, names: Sequence[str], view: View, cursors: Mapping[str, Mapping[str, Sequence[int]]]
    ) -> dict[str, Any]:
        """Return the updates since a page last asked.

        Args:
            names: The selected runs.
            view: How they are drawn.
            cursors: For each chart and run the generation and the number of rows shown.

        Returns:
            ``runs``: the state of each; ``append``: for each chart ``[run, kind, x, y]`` pieces; ``redraw``: the charts
            that cannot be continued; ``cursors``: the new ones.
        """
        shown = self.chosen(names, view.source)
        append: dict[str, list[Any]] = {}
        redraw: list[str] = []
        after: dict[str, dict[str, list[int]]] = {}
        for title, seen in cursors.items():
            pieces: list[Any] = []
            for run in shown:
                if title not in run.series or run.facts.name not in seen:
                    continue
                generation, rows = seen[run.facts.name]
                if generation == run.table.generation and rows == run.table.rows:
                    continue
                after.setdefault(title, {})[run.facts.name] = [run.table.generation, run.table.rows]
                if generation != run.table.generation or rows > run.table.rows or view.group or rows == 0:
                    redraw.append(title)
                    break
                pieces.extend(new_pieces(run, title, view, rows))
            else:
                if pieces:
                    append[title] = pieces
        return {
            "runs": {run.facts.name: state_of(run) for run in shown},
            "count": len(titles_of(shown)[:MOST_CHARTS]),
            "append": {title: pieces for title, pieces in append.items() if title not in redraw},
            "redraw": redraw,
            "cursors": after,
        }


def titles_of(shown: Sequence[Shown]) -> list[str]:
    """Return the series of all runs, each once."""
    return list(dict.fromkeys(name for run in shown for name in run.series))


def points_each(curves: int) -> int:
    """Return the maximum number of points of each curve of a chart."""
    return max(_FEWEST, min(MOST_POINTS, _MOST_TOGETHER // max(1, curves)))


def heading(title: str, view: View) -> str:
    """Return the title of a chart."""
    return measure(readable(title), view.language).title if view.source == "system" else readable(title)


def new_pieces(run: Shown, title: str, view: View, first: int) -> list[list[Any]]:
    """Return the points of a curve since row ``first``, thinned as much as the rest of it."""
    total = run.table.rows
    new = _curve(run, title, view, first)
    most = int(max(_LEAST_NEW, min(_MOST_NEW, 2 * len(new.x) * MOST_POINTS / max(1, total))))
    pieces = [_piece(run, "raw", new, most)]
    if view.smooth:
        back = max(0, first - memory_of(view.smooth) * max(1, first // max(1, _points(run, run.series[title]))))
        whole = _curve(run, title, view, back).smoothed(view.smooth)
        count = len(new.x)
        start = len(whole.x) - count
        pieces.append(
            _piece(run, "smooth", Curve(whole.x[start:], whole.y[start:], new.odd_x[:0], new.odd_y[:0]), most)
        )
    if len(new.odd_x):
        thin = new.thinned(_LEAST_NEW)
        pieces.append([run.facts.name, "odd", numbers(thin.odd_x), odd_words(thin.odd_y)])
    return [piece for piece in pieces if piece[2]["bdata"]]


def state_of(run: Shown) -> dict[str, Any]:
    """Return what the page shows of a run beside its name."""
    status = run.facts.status
    rate, left = pace(run.facts, run.table)
    alive = run.facts.state in ALIVE
    return {
        "state": run.facts.state,
        "rate": rate if alive else None,
        "eta": left,
        "saved": len(checkpoint_steps(run.facts.folder)) if alive else None,
        "step": status.step,
        "max_step": status.max_step,
        "index": run.index,
        "rows": run.table.rows,
        "problem": run.table.problem or run.facts.problem,
        "reason": status.reason[:300],
        "bad": run.table.bad,
    }


def groups_of(shown: Sequence[Shown], view: View) -> list[tuple[str, list[Shown]]]:
    """Group runs by the value of the view's group key; no groups without one."""
    if not view.group:
        return []
    groups: dict[str, list[Shown]] = {}
    for run in shown:
        if view.group == "tags":
            label = ", ".join(sorted(run.facts.notes.tags)) or "–"
        else:
            label = str(run.facts.config_values().get(view.group, "–"))
        groups.setdefault(readable(label), []).append(run)
    return sorted(groups.items(), key=lambda item: _natural(item[0]))


def checkpoint_marks(run: Shown, column: str, view: View) -> tuple[tuple[float, str], ...]:
    """Return the positions of a run's checkpoints on the x-axis; of very many some, with the first and the last."""
    saved = checkpoint_steps(run.facts.folder)
    if not saved:
        return ()
    steps = np.array([float(step) for step in saved])
    own, x = run.table.column("step"), position_of(run.table, column, view)
    if own is None or x is None:
        return ()
    known = np.isfinite(own) & np.isfinite(x)
    if not known.any():
        return ()
    places = np.interp(steps, own[known], x[known]) if view.axis != "step" or column != "step" else steps
    low = view.low if view.low is not None else -np.inf
    high = view.high if view.high is not None else np.inf
    seen = np.flatnonzero((low <= places) & (places <= high))
    if len(seen) > _MARKS:
        seen = seen[np.linspace(0, len(seen) - 1, _MARKS).astype(int)]
    return tuple((float(places[index]), f"iter-{saved[index]}-ckpt") for index in seen)


def _curve(run: Shown, title: str, view: View, first: int = 0) -> Curve:
    curve = curve_of(run.table, run.series[title], view, first)
    divisor = measure(title, view.language).divisor if view.source == "system" else 1.0
    return curve if divisor == 1 else Curve(curve.x, curve.y / divisor, curve.odd_x, curve.odd_y)


def _series(facts: Facts, table: Table, source: str) -> dict[str, list[str]]:
    if source == "log":
        return usable_series(facts.series, table)
    return {name: ["step", name] for name in table.columns if name not in ("time", "step")}


def _piece(run: Shown, kind: str, curve: Curve, most: int) -> list[Any]:
    if not len(curve.x):
        return [run.facts.name, kind, {"bdata": ""}, {"bdata": ""}]
    chosen = pick(curve.x, curve.y, most)
    if chosen[-1] != len(curve.x) - 1:
        chosen = np.append(chosen, len(curve.x) - 1)
    return [run.facts.name, kind, numbers(curve.x[chosen]), numbers(curve.y[chosen])]


def _points(run: Shown, columns: Sequence[str]) -> int:
    column = run.table.column(columns[1])
    return int(np.isfinite(column).sum()) if column is not None else 1


def _natural(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, inert(label)
