"""Histograms over time as the band in which the values of each step are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from darkit.dashboard.charts.colours import colour
from darkit.dashboard.charts.figures import Figure, base_layout, numbers, translucent
from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.texts import text

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""The shares of the values below the lines: the extremes, 5, 25, 50, 75 and 95 %."""


def quantiles(edges: Numbers, counts: Numbers, shares: Sequence[float] = SHARES) -> Numbers:
    """Return below which value each share of a histogram's values is, if those of a bin are spread evenly over it.

    Args:
        edges: The ascending edges of the bins (bins + 1,).
        counts: How many values are in each (bins,), some of them positive.
        shares: The shares, from 0 to 1 (shares,).
    """
    filled = np.flatnonzero(counts)
    edges, counts = edges[filled[0] : filled[-1] + 2], counts[filled[0] : filled[-1] + 1]
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    found: Numbers = np.interp(shares, below, edges)
    return found


def distribution_figure(
    histograms: Sequence[tuple[int, Numbers, Numbers]], name: str, index: int, dark: bool, language: str = "en"
) -> Figure:
    """Draw the median of each step, and around it the bands with half, nine tenths and all of the values.

    Args:
        histograms: Steps, edges and counts, by step.
        name: The run.
        index: The place of its colour.
        dark: Whether the page is dark.
        language: Of the title of its axis.
    """
    layout = base_layout(dark)
    layout.pop("yaxis2")
    layout.update(hovermode=False)
    layout["xaxis"].update(title={"text": text(language, "axis_step"), "standoff": 6})
    if not histograms:
        return {"data": [], "layout": layout}
    x = np.array([float(step) for step, _, _ in histograms])
    lines = np.stack([quantiles(edges, counts) for _, edges, counts in histograms], axis=1)
    shown = colour(index)
    traces = []
    last = len(SHARES) - 1
    for low in range(last // 2):
        for place, fill in ((low, None), (last - low, "tonexty")):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": numbers(x),
                    "y": numbers(lines[place]),
                    "line": {"width": 0},
                    "meta": {"run": name, "kind": "band", "share": SHARES[place]},
                    **({"fill": fill, "fillcolor": translucent(shown, 0.16)} if fill else {}),
                }
            )
    middle = {"mode": "lines+markers", "marker": {"size": 4}, "line": {"width": 2, "color": shown}}
    median = {"type": "scatter", "x": numbers(x), "y": numbers(lines[last // 2]), **middle}
    return {"data": [*traces, {**median, "meta": {"run": name, "kind": "median", "share": 0.5}}], "layout": layout}
