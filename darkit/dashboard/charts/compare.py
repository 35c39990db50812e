"""Several runs compared: last and best values, and config keys against a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.configs import shown_value
from darkit.dashboard.charts.figures import base_layout
from darkit.dashboard.charts.panels import titles_of
from darkit.dashboard.charts.parallel import parallel_figure
from darkit.dashboard.charts.scatter import scatter_figure
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.series import Value, divergence, lost_at, series_values
from darkit.runs.best import known_mode

FEWEST_PARALLEL = 5


@dataclass(frozen=True)
class ValueRow:
    """The value of each metric of one run, or None; and the step from which on its loss is not finite, or None."""

    shown: Shown
    values: tuple[Value | None, ...]
    diverged: float | None = None


def value_rows(shown: Sequence[Shown]) -> tuple[list[str], list[ValueRow], list[int | None]]:
    """Compare last and best values.

    Returns:
        The names of the metrics; a row per run; and for each metric the index of the best run. It is None for a single
        run, and for a metric of which neither high nor low values are better. A run that diverged is not the best one.
    """
    found = [series_values(run.facts, run.table) for run in shown]
    titles = titles_of(shown)
    names = [name for name in titles if any(name in values for values in found)]
    rows = []
    for run, values in zip(shown, found, strict=True):
        lost = divergence(run.facts, values)
        rows.append(ValueRow(run, tuple(values.get(name) for name in names), lost[1] if lost else None))
    best: list[int | None] = []
    for index, name in enumerate(names):
        known = [
            (value.best, place)
            for place, row in enumerate(rows)
            if (value := row.values[index]) is not None and value.best is not None and row.diverged is None
        ]
        mode = mode_of(shown, name)
        pick = max if mode == "max" else min
        best.append(pick(known)[1] if mode and len(known) > 1 else None)
    return names, rows, best


def mode_of(shown: Sequence[Shown], metric: str) -> str | None:
    """Return ``min`` or ``max``, whichever value of a metric is better in these runs; None where nothing says so."""
    modes = (known_mode(run.facts.trainer, metric, *run.series.get(metric, [])[1:]) for run in shown)
    return next((mode for mode in modes if mode), None)


def parallel(
    charts: Charts, names: Sequence[str], keys: Sequence[str], metric: str, dark: bool, flipped: Sequence[str] = ()
) -> dict[str, Any]:
    """Draw config keys against the best value of a metric, or the last one of a metric that has no best one.

    The axes are empty without keys or runs. Those ``flipped`` are logarithmic where they would be linear, or reversed.
    """
    shown = charts.chosen(names, "log")
    rows = {}
    for run in shown:
        values = run.facts.config_values()
        key_values = [shown_value(value) if isinstance(value := values.get(key), bool) else value for key in keys]
        rows[run.facts.name] = [*key_values, told_value(run, metric)]
    if not keys or not rows:
        return {"data": [], "layout": base_layout(dark)}
    places = {run.facts.name: run.index for run in shown}
    return parallel_figure([*keys, metric], rows, places, dark, frozenset(flipped))


def scatter(
    charts: Charts, names: Sequence[str], key: str, metric: str, *, log_x: bool, log_y: bool, dark: bool
) -> dict[str, Any]:
    """Draw the best value of a metric, or the last one of a metric that has no best one, against a config key."""
    shown = charts.chosen(names, "log")
    values = {run.facts.name: (run.facts.config_values().get(key), told_value(run, metric)) for run in shown}
    places = {run.facts.name: run.index for run in shown}
    return scatter_figure(key, metric, values, places, log_x=log_x, log_y=log_y, dark=dark)


def told_value(run: Shown, metric: str) -> float | None:
    """Return the value of a metric that is compared: the best one, or else the last.

    It is None if it is not finite, and for the best one of a run that diverged.
    """
    value = series_values(run.facts, run.table, metric).get(metric)
    if value is not None and value.ranked and lost_at(run.facts, run.table) is not None:
        return None
    said = None if value is None else value.best if value.ranked else value.last
    return said if said is not None and isfinite(said) else None
