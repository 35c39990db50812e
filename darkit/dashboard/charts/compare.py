"""Several runs compared: differing configs, last and best values, and config keys against a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from darkit.dashboard.charts.charts import Charts, Shown
from darkit.dashboard.charts.figures import base_layout
from darkit.dashboard.charts.parallel import parallel_figure
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.rows import series_values, usable_series
from darkit.runs.best import best_mode

MISSING = "–"
FEWEST_PARALLEL = 5
_UNINTERESTING = ("trainer.name",)


@dataclass(frozen=True)
class KeyRow:
    """A config key and its value in each run, as text."""

    key: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs have different values."""
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class ValueRow:
    """The last and best value of each series of one run, or None."""

    shown: Shown
    values: tuple[tuple[float, float] | None, ...]


def config_rows(shown: Sequence[Shown]) -> list[KeyRow]:
    """Return the configs side by side, differing keys first."""
    all_keys = [run.facts.config_values() for run in shown]
    names = dict.fromkeys(key for keys in all_keys for key in keys if key not in _UNINTERESTING)
    rows = [KeyRow(name, tuple(shown_value(keys.get(name, MISSING)) for keys in all_keys)) for name in names]
    return sorted(rows, key=lambda row: not row.differs)


def value_rows(shown: Sequence[Shown]) -> tuple[list[str], list[ValueRow], list[int | None]]:
    """Compare last and best values.

    Returns:
        The names of the series; a row per run; and for each series the index of the best run, or None for a single run.
    """
    found = [series_values(run.facts, run.table) for run in shown]
    names = list(dict.fromkeys(name for values in found for name in values))
    rows = []
    for run, values in zip(shown, found, strict=True):
        pairs = [values.get(name) for name in names]
        rows.append(ValueRow(run, tuple((float(p[0] or 0), float(p[1] or 0)) if p else None for p in pairs)))
    columns = usable_series(shown[0].facts.series, shown[0].table) if shown else {}
    best: list[int | None] = []
    for index, name in enumerate(names):
        known = [(pair[1], place) for place, row in enumerate(rows) if (pair := row.values[index]) is not None]
        pick = max if shown and best_mode(shown[0].facts.trainer, name, *columns.get(name, [])[1:]) == "max" else min
        best.append(pick(known)[1] if len(known) > 1 else None)
    return names, rows, best


def parallel(charts: Charts, names: Sequence[str], keys: Sequence[str], metric: str, dark: bool) -> dict[str, Any]:
    """Draw config keys against the best value of a metric; empty axes without keys or runs."""
    shown = charts.chosen(names, "log")
    rows = {}
    for run in shown:
        values = run.facts.config_values()
        pair = series_values(run.facts, run.table).get(metric)
        key_values = [shown_value(value) if isinstance(value := values.get(key), bool) else value for key in keys]
        rows[run.facts.name] = [*key_values, pair[1] if pair else None]
    if not keys or not rows:
        return {"data": [], "layout": base_layout(dark)}
    return parallel_figure([*keys, metric], rows, {run.facts.name: run.index for run in shown}, dark)


def differing_keys(shown: Sequence[Shown]) -> list[str]:
    """Return the keys in which the runs differ."""
    return [row.key for row in config_rows(shown) if row.differs]


def shown_value(value: Any) -> str:
    """Return a config value as the table shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return f"{value:.10g}" if isinstance(value, float) else readable(str(value))
