"""Parallel coordinates: a metric against the values of config keys. Texts from a run are made inert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darkit.dashboard.charts.figures import Figure, base_layout, colour, inert


def parallel_figure(
    axes: Sequence[str], rows: Mapping[str, Sequence[Any]], colours: Mapping[str, int], dark: bool
) -> Figure:
    """Draw one line per run across config keys, with the metric as the last axis; a value may be None."""
    layout = base_layout(dark)
    surface = layout["hoverlabel"]["bgcolor"]
    layout.pop("yaxis2")
    layout.update(hovermode="closest", dragmode=False, margin={"l": 50, "r": 60, "t": 46, "b": 16})
    layout["xaxis"] = {"visible": False, "fixedrange": True, "range": [-0.15, len(axes) - 0.85]}
    layout["yaxis"] = {"visible": False, "fixedrange": True, "range": [-0.06, 1.06]}
    scales = [_scale_of([values[index] for values in rows.values()]) for index in range(len(axes))]
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
        {"x": index, "y": 1.06, "text": f"<b>{inert(_short(name))}</b>", "showarrow": False, "yanchor": "bottom"}
        for index, name in enumerate(axes)
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
        hover_texts = [f"{inert(name)}: {inert(str(value))}" for name, value in zip(axes, values, strict=True)]
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
    return {"data": traces, "layout": layout}


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

    def place(self, value: Any) -> float | None:
        if value is None:
            return None
        if self.numeric:
            return (float(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return (self.words.index(str(value)) + 0.5) / len(self.words)


def _scale_of(values: Sequence[Any]) -> _Scale:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        low, high = float(min(known)), float(max(known))
        labels = [(f"{low:.4g}", 0.0), (f"{high:.4g}", 1.0)] if high > low else [(f"{low:.4g}", 0.5)]
        return _Scale(True, low, high, (), tuple(labels))
    words = tuple(sorted({str(value) for value in known}))
    return _Scale(
        False, 0, 0, words, tuple((_short(word), (index + 0.5) / len(words)) for index, word in enumerate(words))
    )
