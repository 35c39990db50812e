"""Parallel coordinates: a metric against the values of config keys. Texts from a run are made inert."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from darkit.dashboard.charts.colours import colour
from darkit.dashboard.charts.configs import MISSING, shown_value
from darkit.dashboard.charts.figures import Figure, base_layout, inert
from darkit.runs.numbers import number_text

_DECADES = 100  # between the lowest and the highest number of a logarithmic axis
_MOST_LABELS, _GAP = 6, 0.08


def parallel_figure(
    axes: Sequence[str],
    rows: Mapping[str, Sequence[Any]],
    colours: Mapping[str, int],
    dark: bool,
    flipped: Collection[str] = (),
) -> Figure:
    """Draw one line per run across config keys, with the metric as the last axis; a value may be None.

    An axis of positive numbers over more than two decades is logarithmic, unless it is ``flipped``; others are if they
    are flipped and have positive numbers only.
    """
    layout = base_layout(dark)
    surface = layout["hoverlabel"]["bgcolor"]
    layout.pop("yaxis2")
    layout.update(hovermode="closest", dragmode=False, margin={"l": 50, "r": 60, "t": 46, "b": 16})
    layout["xaxis"] = {"visible": False, "fixedrange": True, "range": [-0.15, len(axes) - 0.85]}
    layout["yaxis"] = {"visible": False, "fixedrange": True, "range": [-0.06, 1.06]}
    scales = [
        _scale_of([values[index] for values in rows.values()], flip=name in flipped) for index, name in enumerate(axes)
    ]
    layout["shapes"] = [
        {
            "type": "line",
            "x0": index,
            "x1": index,
            "y0": 0,
            "y1": 1,
            "line": {"width": 1, "color": layout["font"]["color"]},
        }
        for index in range(len(axes))
    ]
    layout["annotations"] = [
        {
            "x": index,
            "y": 1.06,
            "text": f"<b>{inert(_short(name))}</b>{' · log' if scale.log else ''}",
            "showarrow": False,
            "yanchor": "bottom",
            "captureevents": True,
        }
        for index, (name, scale) in enumerate(zip(axes, scales, strict=True))
    ] + [
        {
            "x": index,
            "y": place,
            "text": inert(label),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 5,
            "font": {"size": 11},
            "bgcolor": surface,
        }
        for index, scale in enumerate(scales)
        for label, place in scale.labels
    ]
    traces = []
    for run, values in rows.items():
        places = [scale.place(value) for scale, value in zip(scales, values, strict=True)]
        told = [*map(_config, values[:-1]), number_text(values[-1]) or MISSING]
        hover_texts = [f"{inert(name)}: {inert(value)}" for name, value in zip(axes, told, strict=True)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": inert(run),
                "x": list(range(len(axes))),
                "y": places,
                "text": hover_texts,
                "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
                "line": {"color": colour(colours[run]), "width": 2, "shape": "spline", "smoothing": 0.6},
                "marker": {"size": 6},
                "opacity": 0.8,
                "connectgaps": False,
                "meta": {"run": run, "kind": "parallel"},
            }
        )
    layout["meta"] = {"axes": list(axes), "log": [scale.log for scale in scales]}
    return {"data": traces, "layout": layout}


def _config(value: Any) -> str:
    return MISSING if value is None else shown_value(value)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"


@dataclass(frozen=True)
class _Scale:
    """The positions of values on an axis from 0 to 1, and its labels."""

    numeric: bool
    low: float
    high: float
    words: tuple[str, ...]
    labels: tuple[tuple[str, float], ...]
    log: bool = False

    def place(self, value: Any) -> float | None:
        if value is None:
            return None
        if not self.numeric:
            return (self.words.index(str(value)) + 0.5) / len(self.words)
        low, high, at = (math.log10(one) if self.log else one for one in (self.low, self.high, float(value)))
        return (at - low) / (high - low) if high > low else 0.5


def _scale_of(values: Sequence[Any], *, flip: bool = False) -> _Scale:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        low, high = float(min(known)), float(max(known))
        log = 0 < low < high < math.inf and (high / low > _DECADES) != flip
        between = (
            [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
            if log
            else []
        )
        empty = _Scale(True, low, high, (), (), log)
        marks = sorted({low, *between, high}) if len(between) <= _MOST_LABELS else [low, high]
        places = [(number_text(mark, 4), empty.place(mark) or 0.0) for mark in marks]
        kept = [one for one in places if one[1] in (0.0, 1.0) or _GAP < one[1] < 1 - _GAP]
        return replace(empty, labels=tuple(kept if high > low else places[:1]))
    words = tuple(sorted({str(value) for value in known}))
    return _Scale(
        False, 0, 0, words, tuple((_short(word), (index + 0.5) / len(words)) for index, word in enumerate(words))
    )
