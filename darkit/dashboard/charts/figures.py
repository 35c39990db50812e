"""From curves to plotly figures: pure functions. All texts from a run are made inert here."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from darkit.dashboard.charts.colours import colour, dash
from darkit.dashboard.charts.curves import EMPTY, Band, Curve
from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.texts import text
from darkit.dashboard.view import View
from darkit.runs.numbers import odd_word

_PALE = 0.28
_FEW_MARKS = 20
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', sans-serif"
_FEW_DIGITS, _MANY_DECADES = 5, 1000  # between these a logarithmic axis has ticks at 1, 2 and 5
_EXPONENT = 1e-3  # smaller values are written with an exponent
_LABEL_HEIGHT = 0.07  # of a chart
_MOST_LABELS = 6
_UNIFIED_HOVER = 8  # up to so many lines one box shows all values

Figure = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A curve of one run in a chart.

    Attributes:
        run: The name of the run.
        index: Its colour index.
        curve: Its raw points.
        smoothed: The smoothed ones, or None.
        marks: Positions of checkpoints on the x-axis, with their names.
        resumed: Where the run was resumed, with words.
        faint: Whether it is drawn behind its group.
        name: What it is called in its chart; by default like its run.
        series: The series that it shows.
    """

    run: str
    index: int
    curve: Curve
    smoothed: Curve | None = None
    marks: tuple[tuple[float, str], ...] = ()
    resumed: tuple[tuple[float, str], ...] = ()
    faint: bool = False
    name: str = ""
    series: str = ""


@dataclass(frozen=True)
class GroupBand:
    """Several runs of one group in a chart."""

    label: str
    index: int
    count: int
    band: Band
    odd: Curve = EMPTY
    name: str = ""
    series: str = ""

    @property
    def title(self) -> str:
        """Its name in its chart, with the number of its runs."""
        return f"{self.name or self.label} ({self.count})"


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # the largest numbers have no range
def chart_figure(
    title: str,
    lines: Sequence[Line],
    bands: Sequence[GroupBand],
    view: View,
    scale: tuple[float, float] | None = None,
    x_title: str = "",
) -> Figure:
    """Draw one chart: single runs as lines, groups as bands; ``scale`` is the range of y without outliers, or None."""
    traces: list[Figure] = []
    for line in lines:
        traces.extend(_line_traces(line))
    for band in bands:
        traces.extend(_band_traces(band, view.log))
    for line in lines:
        traces.extend(_odd_traces(line.name or line.run, line.run, line.series, line.index, line.curve))
        traces.extend(_checkpoint_traces(line, view.language))
        traces.extend(_resumed_traces(line))
    for band in bands:
        traces.extend(_odd_traces(band.title, band.label, band.series, band.index, band.odd))
    layout = base_layout(view.dark)
    unified = len(lines) + len(bands) <= _UNIFIED_HOVER
    layout.update(hovermode="x unified" if unified else "closest", hoversort="value descending")
    layout["xaxis"].update(
        title={"text": inert(x_title), "standoff": 6}, type="date" if view.axis == "wall" else "linear"
    )
    if view.low is not None and view.high is not None:
        layout["xaxis"].update(range=[view.low, view.high], autorange=False)
    layout["yaxis"].update(_log_axis(lines, bands) if view.log else {"type": "linear"})
    layout["yaxis"]["hoverformat"] = _hover_format(lines, bands)
    if scale is not None:
        edges = [float(np.log10(edge)) for edge in scale] if view.log else list(scale)
        if np.isfinite(edges).all():
            layout["yaxis"].update(range=edges, autorange=False)
    layout["meta"] = {"title": inert(title)}
    if bands:
        layout["annotations"] = _labels(bands, view)
    _mend_axes(layout, lines, bands, view)
    return {"data": traces, "layout": layout}


def _hover_format(lines: Sequence[Line], bands: Sequence[GroupBand]) -> str:
    """Return how values are written on hover: with an exponent where all are below 1e-3, as in the tables."""
    largest = max(
        (
            float(np.abs(y).max())
            for y in (*(one.curve.y for one in lines), *(one.band.mean for one in bands))
            if len(y)
        ),
        default=1.0,
    )
    return ".4~e" if 0 < largest < _EXPONENT else ".6~g"


def _log_axis(lines: Sequence[Line], bands: Sequence[GroupBand]) -> Figure:
    """Return a logarithmic axis with the full number at each tick, where plotly would write one digit.

    Over some decades, and around a single value, there are ticks at 1, 2 and 5 only, since all nine would overlap.
    """
    values = np.concatenate([np.empty(0), *(line.curve.y for line in lines), *(band.band.mean for band in bands)])
    values = values[values > 0]
    ratio = values.max() / values.min() if len(values) else 0
    some = ratio == 1 or _FEW_DIGITS < ratio < _MANY_DECADES
    return {"type": "log", "tickformat": ".3~g", **({"dtick": "D2"} if some else {})}


def _mend_axes(layout: Figure, lines: Sequence[Line], bands: Sequence[GroupBand], view: View) -> None:
    """Hide the numbers of an axis without values, and show the minute around a single time."""
    positions = np.concatenate([np.empty(0), *(line.curve.x for line in lines), *(band.band.x for band in bands)])
    if not len(positions):
        layout["yaxis"].update(visible=False)
        if not any(len(line.curve.odd_x) for line in lines):
            said = {"text": text(view.language, "no_values"), "showarrow": False, "font": {"size": 13}}
            layout["annotations"] = [{**said, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}]
    elif not view.log and layout["yaxis"].get("autorange") is not False:
        values = np.concatenate([np.empty(0), *(line.curve.y for line in lines), *(band.band.mean for band in bands)])
        constant = float(values[0]) if len(values) and values.min() == values.max() else 0.0
        if constant and np.isfinite(2 * constant):  # plotly shows one more and one less
            layout["yaxis"].update(range=sorted([0.0, 2 * constant]), autorange=False)
            layout["meta"]["constant"] = constant  # until another value comes
    if len(positions) and view.axis == "wall" and view.low is None and positions.min() == positions.max():
        layout["xaxis"].update(range=[positions[0] - 30_000, positions[0] + 30_000], autorange=False)


def base_layout(dark: bool) -> Figure:
    """Return the layout that all figures share."""
    ink, grid = ("#c1c2c5", "rgba(255,255,255,0.09)") if dark else ("#495057", "rgba(0,0,0,0.08)")
    surface = "#25262b" if dark else "#ffffff"
    axis = {
        "gridcolor": grid,
        "zeroline": False,
        "linecolor": grid,
        "automargin": True,
        "ticks": "",
        "hoverformat": ".6~g",
        "showspikes": False,
    }
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12, "color": ink},
        "margin": {"l": 54, "r": 12, "t": 8, "b": 46},  # of usual labels: for larger ones plotly draws all twice
        "showlegend": False,
        "dragmode": "zoom",
        "hoverdistance": -1,  # wherever the pointer is, the nearest values are shown
        "hoverlabel": {"bgcolor": surface, "bordercolor": grid, "font": {"color": ink, "size": 12}, "namelength": 40},
        "xaxis": {**axis, "exponentformat": "none", "separatethousands": True, "hoverformat": ""},
        "yaxis": {**axis, "exponentformat": "power", "fixedrange": False},
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }


def inert(value: str) -> str:
    """Return text that plotly shows as it is, whatever markup it holds."""
    return html.escape(value, quote=False)


def numbers(values: Numbers) -> dict[str, str]:
    """Return numbers as plotly and the page read them from JSON: little-endian doubles in base64."""
    return {"dtype": "f8", "bdata": base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode()}


def odd_words(values: Numbers) -> list[str]:
    """Return the words for NaN and infinities."""
    return [odd_word(float(value)) for value in values]


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # the largest numbers have no range
def robust_scale(values: Sequence[Numbers], log: bool) -> tuple[float, float] | None:
    """Return the range of the middle 98 % of values, with a margin."""
    together = np.concatenate([*values, np.empty(0)])
    together = together[together > 0] if log else together
    if not len(together):
        return None
    low, high = np.quantile(together, (0.01, 0.99))
    if log:
        air = (high / low) ** 0.08 if low < high else 1.1
        return float(low / air), float(high * air)
    air = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return float(low - air), float(high + air)


def _line_traces(line: Line) -> list[Figure]:
    style = {"color": colour(line.index), "dash": dash(line.index)}
    single = len(line.curve.x) <= 1
    raw: Figure = {
        "type": "scatter",
        "mode": "lines+markers" if single or len(line.curve.x) <= 30 else "lines",
        "name": inert(line.name or line.run),
        "x": numbers(line.curve.x),
        "y": numbers(line.curve.y),
        "line": {**style, "width": 1 if line.faint else 1.6},
        "marker": {"size": 7 if single else 4},
        "meta": {"run": line.run, "kind": "raw", "series": line.series},
        "opacity": 0.45 if line.faint else 1,
    }
    if line.smoothed is None:
        return [raw]
    raw.update(opacity=_PALE, hoverinfo="skip", line={**style, "width": 1})
    smoothed = {
        **raw,
        "x": numbers(line.smoothed.x),
        "y": numbers(line.smoothed.y),
        "line": {**style, "width": 2},
        "opacity": 0.45 if line.faint else 1,
        "hoverinfo": "all",
        "meta": {"run": line.run, "kind": "smooth", "series": line.series},
    }
    return [raw, smoothed]


def _band_traces(group: GroupBand, log: bool) -> list[Figure]:
    band = group.band
    low = band.mean - band.margin
    positive = band.mean[band.mean > 0]
    if log and len(positive):  # such an axis has no lower end: the band ends a decade below the means
        low = np.maximum(low, positive.min() / 10)
    name = inert(group.title)
    meta = {"run": group.label, "series": group.series}
    shared = {"type": "scatter", "mode": "lines", "x": numbers(band.x), "meta": {**meta, "kind": "band"}}
    edge = {**shared, "line": {"width": 0}, "hoverinfo": "skip", "name": name}
    fill = colour(group.index)
    alone = len(band.x) == 1  # neither a line nor a band would be seen
    point = (
        {"mode": "lines+markers", "marker": {"size": 7}, "error_y": {"array": band.margin.tolist()}} if alone else {}
    )
    return [
        {**edge, "y": numbers(low)},
        {**edge, "y": numbers(band.mean + band.margin), "fill": "tonexty", "fillcolor": translucent(fill, 0.16)},
        {
            **shared,
            "y": numbers(band.mean),
            "name": name,
            "line": {"width": 2.2, "color": fill, "dash": dash(group.index)},
            "customdata": numbers(band.margin),
            "hovertemplate": "%{y:.5~g} ± %{customdata:.3~g}<extra>%{fullData.name}</extra>",
            "meta": {**meta, "kind": "mean"},
            **point,
        },
    ]


def _labels(bands: Sequence[GroupBand], view: View) -> list[Figure]:
    """Return the name of each band at the end of its mean, those of neighbours above each other."""
    if len(bands) > _MOST_LABELS:  # they would cover the curves; the page names the groups above its charts
        return []
    ends = [one for one in bands if len(one.band.x) and (not view.log or one.band.mean[-1] > 0)]
    edges = [one.band.mean + sign * one.band.margin for one in ends for sign in (-1, 1)]  # what the axis shows
    every = np.concatenate([np.empty(0), *edges])
    every = np.log10(every[every > 0]) if view.log else every
    room = float(np.ptp(every)) * _LABEL_HEIGHT if len(every) else 0.0
    room = room if np.isfinite(room) else 0.0
    ground = "rgba(37,38,43,0.6)" if view.dark else "rgba(255,255,255,0.6)"
    heights = [(float(np.log10(one.band.mean[-1]) if view.log else one.band.mean[-1]), one) for one in ends]
    labels: list[Figure] = []
    free = -np.inf  # the height below which labels are already
    for height, one in sorted(heights, key=lambda pair: pair[0]):
        place = max(height, free)
        free = place + room
        labels.append(
            {
                "x": float(one.band.x[-1]),
                "y": place,
                "text": f"<b>{inert(one.name or one.label)}</b>",
                "showarrow": False,
                "xanchor": "right",
                "yanchor": "bottom",
                "font": {"size": 11, "color": colour(one.index)},
                "bgcolor": ground,
                "borderpad": 0,
                "yshift": 4,  # above its own curve
            }
        )
    return labels


def _odd_traces(name: str, run: str, series: str, index: int, curve: Curve) -> list[Figure]:
    if not len(curve.odd_x):
        return []
    words = odd_words(curve.odd_y)
    few = len(words) <= _FEW_MARKS  # many overlap, and only their rings would be seen
    symbols = {"NaN": "x", "∞": "triangle-up", "−∞": "triangle-down"}
    marker = {
        "symbol": [symbols[word] for word in words],
        "size": 9 if few else 6,
        "color": "#e03131",
        "line": {"width": 1 if few else 0, "color": colour(index)},
    }
    return [_marks(name, numbers(curve.odd_x), 0.04, words, marker, {"run": run, "kind": "odd", "series": series})]


def _checkpoint_traces(line: Line, language: str) -> list[Figure]:
    if not line.marks:
        return []
    size = 7 if len(line.marks) <= _FEW_MARKS else 5
    marker = {"symbol": "diamond", "size": size, "color": colour(line.index), "opacity": 0.9}
    words = [f"{text(language, 'checkpoint')} {inert(name)}" for _, name in line.marks]
    meta = {"run": line.run, "kind": "checkpoint"}
    marks = _marks(line.run, [place for place, _ in line.marks], 0.0, words, marker, meta)
    return [{**marks, "cliponaxis": False, "hoverinfo": "skip", "hovertemplate": ""}]


def _resumed_traces(line: Line) -> list[Figure]:
    if not line.resumed:
        return []
    marker = {"symbol": "line-ns", "size": 16, "line": {"width": 2, "color": colour(line.index)}}
    meta = {"run": line.run, "kind": "resumed"}
    places, words = [place for place, _ in line.resumed], [words for _, words in line.resumed]
    return [{**_marks(line.run, places, 0.0, words, marker, meta), "cliponaxis": False}]


def _marks(name: str, x: Any, height: float, words: Sequence[str], marker: Figure, meta: Figure) -> Figure:
    """Return marks with words at a height of the chart, whatever its y-axis shows."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": inert(name),
        "x": x,
        "y": [height] * len(words),
        "yaxis": "y2",
        "text": words,
        "hovertemplate": "%{text}",
        "marker": marker,
        "meta": meta,
    }


def translucent(hex_colour: str, alpha: float) -> str:
    """Return a colour that lets the ground through."""
    red, green, blue = (int(hex_colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
