"""A metric against a config key: one point for each run. Texts from a run are made inert."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from darkit.dashboard.charts.colours import colour
from darkit.dashboard.charts.figures import Figure, base_layout, inert
from darkit.dashboard.charts.groups import is_seed
from darkit.runs.numbers import number_text

_RATE = re.compile(r"(^|[._])(lr|learning_rate)$", re.IGNORECASE)


def first_key(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """Return the key to look at first: no seed, with the most different numbers, of equally many a learning rate.

    Args:
        configs: The config values of each run.
        keys: The keys in which runs differ; at least one.
    """

    def weight(key: str) -> tuple[bool, int, bool]:
        numbers = {value for config in configs if _is_number(value := config.get(key))}
        return not is_seed(key), len(numbers), _RATE.search(key) is not None

    return max(keys, key=weight)


def scatter_figure(
    key: str,
    metric: str,
    values: Mapping[str, tuple[Any, float | None]],
    places: Mapping[str, int],
    *,
    log_x: bool,
    log_y: bool,
    dark: bool,
) -> Figure:
    """Draw the points of runs.

    Args:
        key: The config key on the x-axis.
        metric: The metric on the y-axis.
        values: For each run the value of the key, and of the metric or None; a run without either is left out.
        places: The place of each run's colour.
        log_x: Whether the x-axis is logarithmic, if all of its values are positive numbers.
        log_y: Whether the y-axis is logarithmic, if all of its values are positive.
        dark: Whether the page is dark.
    """
    known = {run: (x, y) for run, (x, y) in values.items() if x is not None and y is not None}
    numeric = bool(known) and all(_is_number(x) for x, _ in known.values())
    layout = base_layout(dark)
    layout.pop("yaxis2")
    layout.update(hovermode="closest", dragmode=False, hoverdistance=20)
    log_x = log_x and numeric and all(x > 0 for x, _ in known.values())
    log_y = log_y and all(y > 0 for _, y in known.values())
    axis = {"type": "log" if log_x else "linear" if numeric else "category", "fixedrange": True}
    layout["xaxis"].update(**axis, title={"text": inert(key), "standoff": 6})
    layout["yaxis"].update(type="log" if log_y else "linear", title={"text": inert(metric), "standoff": 6})
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": inert(run),
            "x": [x if numeric else inert(str(x))],
            "y": [y],
            "hovertext": f"{inert(key)}: {inert(_shown(x))}<br>{inert(metric)}: {number_text(y)}",
            "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
            "marker": {"size": 9, "color": colour(places[run]), "line": {"width": 1, "color": layout["font"]["color"]}},
            "meta": {"run": run, "kind": "point"},
        }
        for run, (x, y) in known.items()
    ]
    return {"data": traces, "layout": layout}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return number_text(value, 10) if isinstance(value, float) else str(value)
