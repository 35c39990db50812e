"""Charts of runs without a server: a figure for a notebook, and a page as one file."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darkit.dashboard.charts.charts import Charts, heading
from darkit.dashboard.charts.export import comparison_page
from darkit.dashboard.charts.figures import base_layout, inert
from darkit.dashboard.charts.groups import check_keys
from darkit.dashboard.charts.panels import Panel, panels_of, titles_of
from darkit.dashboard.reading.asked import find
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.said import run_json
from darkit.dashboard.view import MOST_RUNS, View, read_view
from darkit.errors import ConfigError, nearest
from darkit.runs import Run, base, load

if TYPE_CHECKING:
    import plotly.graph_objects

_MOST_METRICS = 12  # charts of a figure, unless they are chosen
_HEIGHT = 280  # pixels of a chart
_GAP = 0.09  # between the two columns, as a share of the width
_KINDS = ("mean", "smooth", "raw")  # of traces that stand for their run in the legend, the first that it has


def compare(
    names: str | Run | Sequence[str | Run],
    metrics: str | Sequence[str] | None = None,
    *,
    axis: str = "step",
    smooth: float = 0.0,
    log: bool = False,
    group: str | Sequence[str] = (),
    root: Path | None = None,
) -> plotly.graph_objects.Figure:
    """Draw runs beside each other as a plotly figure, one chart for each metric or family of metrics, as on the page.

    Args:
        names: Names of runs, or runs; at most 200.
        metrics: The metrics to show; by default those of the first twelve charts of the page.
        axis: The x-axis: ``step``, ``epoch``, ``relative`` (seconds since the start) or ``wall`` (clock time, UTC).
        smooth: Weight of the moving average, from 0 (none) to 0.9999.
        log: Whether y is logarithmic.
        group: One or several flat config keys, such as ``trainer.lr``, or ``tags``, or ``*`` for all that differ but
            seeds: shows mean and standard deviation of the groups.
        root: Where the runs are; by default below the home.

    Raises:
        RunNotFoundError: A run does not exist; the text lists the runs, nearest first.
        ConfigError: No run is named, or more than 200 are; a metric or key does not exist; a setting is wrong.
    """
    from plotly.graph_objects import Figure

    keys = [group] * bool(group) if isinstance(group, str) else list(group)
    view = read_view({"axis": axis, "smooth": smooth, "log": log, "group": keys})
    charts, addresses = _charts_of(names, root)
    shown = charts.chosen(addresses, "log")
    check_keys(keys, shown)
    every = titles_of(shown)
    if metrics is None:
        panels = panels_of(shown, view)
        if len(panels) > _MOST_METRICS:
            warnings.warn(
                f"Shows the first {_MOST_METRICS} of {len(panels)} charts. Choose with metrics=.", stacklevel=2
            )
        panels = panels[:_MOST_METRICS]
    else:
        titles = list(dict.fromkeys([metrics] if isinstance(metrics, str) else metrics))
        panels = [Panel(title, (title,)) for title in titles]
        for title in titles:
            if title not in every:
                raise ConfigError(f"None of these runs has the metric {title!r}. {nearest(title, every)}.")
    data: list[dict[str, Any]] = []
    columns = 1 if len(panels) < 2 else 2
    lines = max(1, -(-len(panels) // columns))
    layout = base_layout(view.dark)
    for name in ("xaxis", "yaxis", "yaxis2"):
        layout.pop(name)
    layout |= {"showlegend": True, "height": _HEIGHT * lines + 40, "hovermode": "closest", "annotations": []}
    layout["legend"] = {"orientation": "h", "x": 0.0, "y": 1.0, "yanchor": "bottom", "itemwidth": 30}
    layout["margin"] = {"l": 50, "r": 12, "t": 60, "b": 36}
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        width = (1 - _GAP * (columns - 1)) / columns
        across = (column * (width + _GAP), column * (width + _GAP) + width)
        up = (1 - (row + 0.82) / lines, 1 - (row + 0.08) / lines)
        _place(charts.figure(panel, shown, view), place, across, up, data, layout, inert(heading(panel, view)))
    _fill_legend(data)
    return Figure(data=data, layout=layout)


def query(text: str, *, root: Path | None = None) -> list[Run]:
    """Return the runs that a query asks for, newest first, as ``darkit query`` lists them without the archived ones.

    Args:
        text: The query, such as ``lr=3e-4 val_loss<0.3``; empty for all runs.
        root: Where the runs are; by default below the home.

    Raises:
        QueryError: The query cannot be read, names what no run has, or takes too long.
    """
    where = root or base()
    found = find(Library(where, LogCache()), text)
    return [Run(where / entry.name) for entry in found if not run_json(entry)["archived"]]


def report(names: Sequence[str], view: View, root: Path | None = None) -> bytes:
    """Return runs as one HTML page that needs no server: tables, configs and charts.

    Raises:
        RunNotFoundError: A run does not exist; the text lists the runs, nearest first.
        ConfigError: No run is named, or more than 200 are; no run has a key of the view's groups.
    """
    charts, addresses = _charts_of(names, root)
    check_keys(view.group, charts.chosen(addresses, view.source))
    return comparison_page(charts, addresses, view)


def _charts_of(names: str | Run | Sequence[str | Run], root: Path | None) -> tuple[Charts, list[str]]:
    """Check that runs exist, and return what draws them, and their names without repetitions."""
    where = root or base()
    given = [names] if isinstance(names, str | Run) else list(names)
    for run in given:
        if isinstance(run, Run) and run.path.parent != where:
            raise ConfigError(f"The run {run.path} is not in {where}. Give its folder as root=.")
    found = list(dict.fromkeys(run.name if isinstance(run, Run) else load(run, root=where).name for run in given))
    if not 0 < len(found) <= MOST_RUNS:
        raise ConfigError(f"Name 1 to {MOST_RUNS} runs, not {len(found)}.")
    return Charts(Library(where, LogCache())), found


def _place(
    figure: Mapping[str, Any],
    place: int,
    across: tuple[float, float],
    up: tuple[float, float],
    data: list[dict[str, Any]],
    layout: dict[str, Any],
    title: str,
) -> None:
    """Put a chart at a place of a larger figure: ``across`` and ``up`` are its sides as shares of width and height."""
    x, y, marks = _axis("x", place + 1), _axis("y", 2 * place + 1), _axis("y", 2 * place + 2)
    for trace in figure["data"]:
        axes = {"xaxis": x, "yaxis": marks if trace.get("yaxis") == "y2" else y}
        data.append({key: _array(value) for key, value in trace.items()} | axes)
    own = figure["layout"]
    layout[f"xaxis{x[1:]}"] = {**own["xaxis"], "domain": across, "anchor": y}
    layout[f"yaxis{y[1:]}"] = {**own["yaxis"], "domain": up, "anchor": x}
    layout[f"yaxis{marks[1:]}"] = {**own["yaxis2"], "overlaying": y, "anchor": x}
    corner = {"x": across[0], "y": up[1], "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    layout["annotations"].append({**corner, "text": f"<b>{title}</b>", "showarrow": False, "font": {"size": 13}})
    for said in own.get("annotations", ()):
        layout["annotations"].append({**said, "xref": f"{x} domain", "yref": f"{y} domain"})


def _array(value: Any) -> Any:
    """Return numbers that are written for the page (`darkit.dashboard.charts.figures.numbers`) as an array."""
    return np.frombuffer(base64.b64decode(value["bdata"])) if isinstance(value, dict) and "bdata" in value else value


def _axis(letter: str, number: int) -> str:
    """Return plotly's name of the axis with this number, from 1 on."""
    return letter if number == 1 else f"{letter}{number}"


def _fill_legend(data: Sequence[dict[str, Any]]) -> None:
    """Name each run once, by its most telling curve; a click on it hides the run in all charts."""
    found: dict[str, dict[str, Any]] = {}
    for kind in _KINDS:
        for trace in data:
            if trace["meta"]["kind"] == kind:
                found.setdefault(trace["name"], trace)
    for trace in data:
        trace |= {"legendgroup": trace["name"], "showlegend": found.get(trace["name"]) is trace}
