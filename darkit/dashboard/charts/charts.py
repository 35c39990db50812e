"""The charts of a page: the series of the selected runs, their figures, and updates."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darkit.dashboard.charts.colours import DASHES, PALETTE, places_of
from darkit.dashboard.charts.curves import EMPTY, Curve, band_of, curve_of, odd_of
from darkit.dashboard.charts.downsample import MOST_POINTS, memory_of, pick, spacing_of
from darkit.dashboard.charts.figures import GroupBand, Line, chart_figure, numbers, odd_words, robust_scale
from darkit.dashboard.charts.groups import placed_groups
from darkit.dashboard.charts.marks import (
    checkpoint_marks,
    positions_of,
    saved_key,
    session_marks,
    with_lost_step,
)
from darkit.dashboard.charts.panels import Panel, columns_of, panels_of
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.machine import measure
from darkit.dashboard.reading.series import evaluated_series, lost_at, usable_series
from darkit.dashboard.reading.sessions import pace, resumptions
from darkit.dashboard.reading.tail import Table
from darkit.dashboard.texts import text
from darkit.dashboard.view import MOST_CHARTS, View
from darkit.errors import DarkitError
from darkit.runs.status import ALIVE

_MARKED_RUNS = 20
_LEAST_NEW = 4
_MOST_NEW = 120  # points per curve and update
_CACHED = 64 * 2**20  # bytes of answers
_MOST_TOGETHER = 20_000  # points of all curves of a chart: more cost the browser time and show nothing
_FEWEST = 100  # points per curve, however many curves there are
_SELDOM = 4  # a series with a value in at most one of so many rows is not smoothed
_BANDS = {"std": "band_std", "ci": "band_ci"}  # what is said of a group's band
_POSITIONS = ("time", "step")  # of the log of the machine


class Charts:
    """Answer the requests of a page's charts."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._answers: OrderedDict[str, tuple[Any, bytes]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def chosen(self, names: Sequence[str], source: str) -> list[Shown]:
        """Read the selected runs, without those that no longer exist."""
        found: dict[str, Facts] = {}
        for name in names:
            try:
                found[name] = self._library.facts(name)
            except DarkitError:  # deleted; the page sees that it is missing
                continue
        chosen = {name: facts.notes.colour for name, facts in found.items() if facts.notes.colour is not None}
        places = dict(zip(names, places_of(names, chosen), strict=True))
        tables = self._library.logs(found.values(), source)
        return [
            _shown(places[name], facts, table, source)
            for (name, facts), table in zip(found.items(), tables, strict=True)
        ]

    def draw(self, names: Sequence[str], view: View, wanted: Sequence[str] | None) -> bytes:
        """Return figures as JSON: of the wanted charts, or, for None, of the first two, with the list of all."""
        shown = self.chosen(names, view.source)
        key = json.dumps([names, view.__dict__, wanted])
        marked = _is_marked(shown, view)
        state = [
            (run.index, run.table.generation, run.table.rows, run.facts, saved_key(run) if marked else 0)
            for run in shown
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
        every = panels_of(shown, view)
        panels = every[:MOST_CHARTS]
        drawn = panels[:2] if wanted is None else [panel for panel in panels if panel.id in set(wanted)]
        return {
            "charts": [
                {
                    "id": panel.id,
                    "title": heading(panel, view),
                    "section": readable(panel.section),
                    "members": list(panel.members),
                    "family": panel.family,
                }
                for panel in panels
            ],
            "left_out": len(every) - len(panels),
            "columns": columns_of(shown) if view.source == "log" else [],
            "figures": {panel.id: self.figure(panel, shown, view) for panel in drawn},
            "cursors": {run.facts.name: [run.table.generation, run.table.rows] for run in shown},
            "runs": {run.facts.name: state_of(run, marked=_is_marked(shown, view)) for run in shown},
            "groups": [
                {"label": label, "index": index, "runs": [run.facts.name for run in members]}
                for index, label, members in placed_groups(shown, view)
            ],
        }

    def figure(self, panel: Panel, shown: Sequence[Shown], view: View) -> dict[str, Any]:
        """Draw the series of a chart of the selected runs."""
        lines, bands, scales = [], [], []
        with_series = [run for run in shown if not run.series.keys().isdisjoint(panel.members)]
        marked = _is_marked(with_series, view)
        groups = placed_groups(shown, view)
        single: Sequence[tuple[int | None, Shown]] = (
            [(None, run) for run in with_series]
            if not view.group
            else [(index, run) for index, label, members in groups if label in view.unfold for run in members]
        )
        drawn = [(index, run, title) for index, run in single for title in panel.members if title in run.series]
        most = points_each(len(drawn) * (2 if view.smooth else 1))
        spacing = _spacing(panel, with_series, view)
        seen: set[str] = set()
        for index, run, title in drawn:
            raw = curve(run, title, view)
            smooths = view.smooth and not _is_sparse(run, raw)
            smoothed = raw.smoothed(view.smooth, spacing).within(view.low, view.high) if smooths else None
            raw = with_lost_step(run, title, raw.within(view.low, view.high), view)
            scales.append(raw.y)
            first = marked and run.facts.name not in seen  # a run is marked once, however many of its series there are
            seen.add(run.facts.name)
            lines.append(
                Line(
                    run.facts.name,
                    _place(panel, title, run.index if index is None else index, alone=len(shown) == 1),
                    raw.thinned(most),
                    smoothed.thinned(most) if smoothed is not None else None,
                    checkpoint_marks(run, run.series[title][0], view) if first else (),
                    session_marks(run, run.series[title][0], view) if first else (),
                    faint=index is not None,
                    name=_name(panel, title, run.facts.name, alone=len(shown) == 1),
                    series=title,
                )
            )
        for index, label, runs in groups:
            for title in panel.members:
                members = [run for run in runs if title in run.series]
                if not members:
                    continue
                raws = [(run, curve(run, title, view)) for run in members]
                curves = [
                    (raw if _is_sparse(run, raw) else raw.smoothed(view.smooth, spacing)).within(view.low, view.high)
                    for run, raw in raws
                ]
                band = band_of(curves, spread=view.spread)
                scales.append(band.mean)
                odd = EMPTY if label in view.unfold else odd_of(curves)  # an unfolded run has its own marks
                place = _place(panel, title, index, alone=len(groups) == 1)
                name = _name(panel, title, label, alone=False)
                bands.append(GroupBand(label, place, len(members), band, odd, name, title))
        scale = robust_scale(scales, view.log) if view.robust else None
        if view.source == "system" and measure(panel.id, view.language).percent:
            scale = (0.0, 102.0)
        return chart_figure(
            heading(panel, view), lines, bands, view, scale, _x_title(panel, with_series, view, bool(bands))
        )

    def news(
        self, names: Sequence[str], view: View, cursors: Mapping[str, Mapping[str, Sequence[int]]]
    ) -> dict[str, Any]:
        """Return the updates since a page last asked.

        Args:
            names: The selected runs.
            view: How they are drawn.
            cursors: For each chart and run the generation and the number of rows shown.

        Returns:
            ``runs``: the state of each; ``append``: for each chart ``[run, kind, x, y, series]`` pieces; ``redraw``:
            the charts that cannot be continued; ``cursors``: the new ones.
        """
        shown = self.chosen(names, view.source)
        panels = {panel.id: panel for panel in panels_of(shown, view)}
        append: dict[str, list[Any]] = {}
        redraw: list[str] = []
        after: dict[str, dict[str, list[int]]] = {}
        for id, seen in cursors.items():
            panel = panels.get(id)
            grown = [run for run in shown if panel is not None and _has_grown(run, panel, seen)]
            if panel is None and any(id in run.series for run in shown):
                redraw.append(id)  # its series is in the chart of a family now
            if panel is None or not grown:
                continue
            after[id] = {run.facts.name: [run.table.generation, run.table.rows] for run in grown}
            if view.group or any(not _continues(run, seen) for run in grown):
                redraw.append(id)
                continue
            spacing = _spacing(panel, shown, view)
            pieces = [
                piece
                for run in grown
                for title in panel.members
                if title in run.series
                for piece in new_pieces(run, title, view, seen[run.facts.name][1], spacing)
            ]
            if pieces:
                append[id] = pieces
        return {
            "runs": {run.facts.name: state_of(run, marked=_is_marked(shown, view)) for run in shown},
            "count": min(MOST_CHARTS, len(panels)),
            "append": append,
            "redraw": redraw,
            "cursors": after,
        }


def points_each(curves: int) -> int:
    """Return the maximum number of points of each curve of a chart."""
    return max(_FEWEST, min(MOST_POINTS, _MOST_TOGETHER // max(1, curves)))


def heading(panel: Panel, view: View) -> str:
    """Return the title of a chart."""
    return measure(readable(panel.id), view.language).title if view.source == "system" else readable(panel.id)


def new_pieces(run: Shown, title: str, view: View, first: int, spacing: float | None = None) -> list[list[Any]]:
    """Return the points of a curve since row ``first``, thinned as much as the rest of it."""
    if title in run.evaluated:
        return []
    total = run.table.rows
    new = curve(run, title, view, first)
    most = int(max(_LEAST_NEW, min(_MOST_NEW, len(new.x) * MOST_POINTS / max(1, total))))
    pieces = [_piece(run, title, "raw", new, most)]
    points = _points(run, run.series[title]) if view.smooth else 0
    if points * _SELDOM > total:
        back = max(0, first - memory_of(view.smooth) * max(1, first // max(1, points)))
        whole = curve(run, title, view, back).smoothed(view.smooth, spacing)
        start = len(whole.x) - len(new.x)
        smoothed = Curve(whole.x[start:], whole.y[start:], new.odd_x[:0], new.odd_y[:0])
        pieces.append(_piece(run, title, "smooth", smoothed, most))
    if len(new.odd_x):
        thin = new.thinned(_LEAST_NEW)
        pieces.append([run.facts.name, "odd", numbers(thin.odd_x), odd_words(thin.odd_y), title])
    return [piece for piece in pieces if piece[2]["bdata"]]


def _is_marked(shown: Sequence[Shown], view: View) -> bool:
    """Return whether charts have marks of checkpoints: not if they overlap."""
    return len(shown) <= _MARKED_RUNS and view.source == "log"


def state_of(run: Shown, *, marked: bool = False) -> dict[str, Any]:
    """Return what the page shows of a run beside its name; if ``marked``, with the key of its checkpoints."""
    status = run.facts.status
    rate, left = pace(run.facts, run.table)
    alive = run.facts.state in ALIVE
    lost = lost_at(run.facts, run.table)
    return {
        "state": run.facts.state,
        "rate": rate if alive else None,
        "eta": left,
        "saved": saved_key(run) if marked or alive else None,
        "diverged": lost[1] if lost else None,
        "step": status.step,
        "max_step": status.max_step,
        "index": run.index,
        "rows": run.table.rows,
        "problem": run.table.problem or run.facts.problem,
        "reason": status.reason[:300],
        "bad": run.table.bad,
    }


def curve(run: Shown, title: str, view: View, first: int = 0) -> Curve:
    """Return a series of a run, from a row of its log on."""
    if title in run.evaluated:
        steps, values = run.evaluated[title]
        x = steps if view.axis == "step" and not view.x else positions_of(run, steps.tolist(), "step", view)
        finite = np.isfinite(values)
        return EMPTY if x is None else Curve(x[finite], values[finite], x[~finite], values[~finite])
    found = curve_of(run.table, run.series[title], view, first, run.resumed)
    divisor = measure(title, view.language).divisor if view.source == "system" else 1.0
    return found if divisor == 1 else Curve(found.x, found.y / divisor, found.odd_x, found.odd_y, found.at)


def _shown(index: int, facts: Facts, table: Table, source: str) -> Shown:
    if source != "log":
        return Shown(index, facts, table, {name: ["step", name] for name in table.columns if name not in _POSITIONS})
    own = usable_series(facts.series, table)
    evaluated = {name: values for name, values in evaluated_series(facts).items() if name not in own}
    series = own | {name: ["step", name] for name in evaluated}
    return Shown(index, facts, table, series, resumptions(facts), evaluated)


def _has_grown(run: Shown, panel: Panel, seen: Mapping[str, Sequence[int]]) -> bool:
    known = seen.get(run.facts.name)
    now = [run.table.generation, run.table.rows]
    return known is not None and list(known) != now and not run.series.keys().isdisjoint(panel.members)


def _continues(run: Shown, seen: Mapping[str, Sequence[int]]) -> bool:
    """Return whether the points that a page shows of a run are still its first ones."""
    generation, rows = seen[run.facts.name]
    return generation == run.table.generation and 0 < rows <= run.table.rows


def _place(panel: Panel, title: str, index: int, *, alone: bool) -> int:
    """Return the place of a curve: its run's; beside other series the dash is its own, and alone the colour too."""
    if len(panel.members) == 1:
        return index
    order = panel.members.index(title)
    return order if alone else index % len(PALETTE) + len(PALETTE) * (order % len(DASHES))


def _name(panel: Panel, title: str, name: str, *, alone: bool) -> str:
    if len(panel.members) == 1:
        return name
    return readable(title) if alone else f"{name} · {readable(title)}"


def _x_title(panel: Panel, shown: Sequence[Shown], view: View, with_bands: bool) -> str:
    """Return what x is and, of a chart with bands, what they show, so that a picture of it says so too."""
    own = {run.series[title][0] for run in shown for title in panel.members if title in run.series}
    named = view.axis != "step" or own <= {"step"}
    name = view.x or (text(view.language, f"axis_{view.axis}") if named else ", ".join(own))
    return f"{name} · {text(view.language, _BANDS[view.spread])}" if with_bands else name


def _spacing(panel: Panel, shown: Sequence[Shown], view: View) -> float | None:
    """Return over how many steps the weight of smoothing counts in a chart: the widest usual distance of its curves."""
    if not view.smooth:
        return None
    curves = [(run, curve(run, title, view)) for run in shown for title in panel.members if title in run.series]
    return max((spacing_of(one.steps) for run, one in curves if not _is_sparse(run, one)), default=None)


def _is_sparse(run: Shown, points: Curve) -> bool:
    """Return whether a curve has few values, such as those of evaluations, which are no noise to be smoothed."""
    return len(points.x) * _SELDOM <= run.table.rows


def _piece(run: Shown, title: str, kind: str, points: Curve, most: int) -> list[Any]:
    if not len(points.x):
        return [run.facts.name, kind, {"bdata": ""}, {"bdata": ""}, title]
    chosen = pick(points.x, points.y, most)
    if chosen[-1] != len(points.x) - 1:
        chosen = np.append(chosen, len(points.x) - 1)
    return [run.facts.name, kind, numbers(points.x[chosen]), numbers(points.y[chosen]), title]


def _points(run: Shown, columns: Sequence[str]) -> int:
    column = run.table.column(columns[1])
    return int(np.isfinite(column).sum()) if column is not None else 1
