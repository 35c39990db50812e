"""The metrics of a run: which columns of its log are curves, and the last and best value of each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.tail import Table
from darkit.runs.best import LOSS, known_mode
from darkit.runs.checkpoints import step_of
from darkit.runs.run import is_pair

_POSITIONS = ("step", "epoch", "time")  # columns that say where a row is
_DIGITS = re.compile(r"(\d+)")
_FIRST, _LAST = ("val", "valid", "validation", "eval", "test"), ("lr", "learning_rate")


@dataclass(frozen=True)
class Value:
    """What became of one metric.

    Attributes:
        last: The last value; NaN or infinite if the log says so.
        best: The best finite value; None without one, and where neither high nor low values are better.
        ranked: Whether high or low values of this metric are better.
        lost: The step of the first value that is NaN or infinite and after which none is finite; None without such.
        best_at: The step of the best value; None without one. Both are the x of the metric where the log has no steps.
    """

    last: float
    best: float | None
    ranked: bool
    lost: float | None = None
    best_at: float | None = None


def usable_series(series: Mapping[str, Any], table: Table) -> dict[str, list[str]]:
    """Return the curves of a run, each with its x and y column.

    Its well-formed declared series come first, then every other column with numbers, in the order of `in_order`.
    """
    found = declared_series(series)
    shown = {columns[1] for columns in found.values()}
    x = "step" if "step" in table.columns or not table.columns else table.columns[0]
    rest = [name for name in table.filled if name not in shown and name not in found and name not in (x, *_POSITIONS)]
    return found | {name: [x, name] for name in in_order(rest)}


def declared_series(series: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the well-formed series that a run declares."""
    return {readable(name): list(columns) for name, columns in series.items() if is_pair(columns)}


def in_order(names: Iterable[str]) -> list[str]:
    """Sort the names of metrics: those of an evaluation first, learning rates last, numbers in them by value.

    Names with the same prefix are neighbours.
    """
    return sorted(names, key=_place)


def by_rank(names: Iterable[str]) -> list[str]:
    """Move the names of metrics of an evaluation to the front and learning rates to the end."""
    return sorted(names, key=lambda name: _place(name)[0])


@lru_cache(10_000)
def _place(name: str) -> tuple[int, list[tuple[bool, int, str]]]:
    first = re.split(r"[^a-z0-9]+", name.lower(), maxsplit=1)[0]
    rank = 0 if first in _FIRST else 2 if first in _LAST or name.lower() in _LAST else 1
    parts = _DIGITS.split(name.lower())
    return rank, [(part.isdecimal(), int(part[:300]) if part.isdecimal() else 0, part) for part in parts]


def evaluated_series(facts: Facts) -> dict[str, tuple[Numbers, Numbers]]:
    """Return what later evaluations of a run's checkpoints measured.

    Returns:
        For each metric and data the steps of the checkpoints (points,), ascending, and the values (points,); of several
        evaluations of one checkpoint the newest.
    """
    found: dict[str, dict[int, float]] = {}
    for evaluation in facts.notes.evaluations:
        step = step_of(evaluation.checkpoint)
        if step is None:
            continue
        for metric, value in evaluation.metrics.items():
            name = readable(f"evaluated/{metric} · {evaluation.data}")
            found.setdefault(name, {})[step] = value
    pairs = {name: sorted(values.items()) for name, values in found.items()}
    return {
        name: (np.array([float(step) for step, _ in some]), np.array([value for _, value in some]))
        for name, some in pairs.items()
    }


def series_values(facts: Facts, table: Table, only: str | None = None) -> dict[str, Value]:
    """Return the values of each metric of a run that has any, or ``only`` of the one with this name."""
    found: dict[str, Value] = {}
    for name, (x, y) in usable_series(facts.series, table).items():
        column = table.column(y) if only is None or readable(name) == only else None
        if column is None:
            continue
        finite = np.isfinite(column)
        odd = table.odd(y)
        places, odd_places = np.flatnonzero(finite), np.flatnonzero(odd)
        if not len(places) and not len(odd_places):
            continue
        last_finite = int(places[-1]) if len(places) else -1
        lost = odd_places[np.searchsorted(odd_places, last_finite) :] if len(odd_places) else odd_places
        mode = known_mode(facts.trainer, name, y)
        values = column[places]
        chosen = None if mode is None or not len(values) else int(values.argmax() if mode == "max" else values.argmin())
        best = None if chosen is None else float(values[chosen])
        where = table.column("step" if "step" in table.columns else x) if len(lost) or chosen is not None else None
        best_at = float(where[places[chosen]]) if where is not None and chosen is not None else None
        found[readable(name)] = Value(
            float(column[lost[-1] if len(lost) else last_finite]),
            best,
            mode is not None,
            None if not len(lost) else float(where[lost[0]]) if where is not None else float(lost[0]),
            best_at if best_at is not None and math.isfinite(best_at) else None,
        )
    return found


def divergence(facts: Facts, values: Mapping[str, Value]) -> tuple[str, float] | None:
    """Return the metric that became NaN or infinite and stayed so, and from which step on; None for a sound run.

    A step that ended the run is known also where its row was not logged. Only declared series and losses count: of
    other columns, such as the norm of gradients under mixed precision, an infinite value is no loss.
    """
    lost = [
        (name, value.lost)
        for name, value in values.items()
        if value.lost is not None and math.isfinite(value.lost) and _tells(name, facts)
    ]
    if facts.status.diverged is not None:
        lost.append((loss_of(declared_series(facts.series), values), float(facts.status.diverged)))
    return min(lost, key=lambda pair: pair[1]) if lost else None


def lost_at(facts: Facts, table: Table) -> tuple[str, float] | None:
    """Return the `divergence` of a run; it reads the last values first, as a sound run is asked for often."""
    names = usable_series(facts.series, table).items()
    if facts.status.diverged is None and not any(
        y in table.columns and _tells(name, facts) and table.ends_odd(y) for name, (_, y) in names
    ):
        return None
    return divergence(facts, series_values(facts, table))


def _tells(name: str, facts: Facts) -> bool:
    return name in declared_series(facts.series) or LOSS.search(name) is not None


def loss_of(declared: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the metric that is trained: ``train_loss``, or else the first loss, declared ones before others."""
    every = list(dict.fromkeys((*declared, *names)))
    if "train_loss" in every or not every:
        return "train_loss"
    return next((name for name in every if LOSS.search(name)), every[0])
