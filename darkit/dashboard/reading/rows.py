"""The row of a run in the table of runs, from its small files and its log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.tail import Table
from darkit.runs.best import best_mode
from darkit.runs.run import is_pair
from darkit.runs.safe import finite_number as number

_RATE_ROWS = 200


def summary(facts: Facts, table: Table | None) -> dict[str, Any]:
    """Return the row of one run in the table of runs; times in Unix seconds, durations in seconds."""
    status = facts.status
    series = series_values(facts, table) if table is not None else {}
    problem = facts.problem or (table.problem if table is not None else "")
    rate, eta = pace(facts, table)
    ended = status.heartbeat
    config_device = facts.trainer.get("device")
    return {
        "name": facts.name,
        "opens": facts.opens,
        "state": facts.state,
        "problem": problem,
        "reason": readable(status.reason)[:300],
        "model": readable(facts.model),
        "project": readable(facts.project),
        "step": status.step,
        "max_step": status.max_step,
        "progress": min(1.0, status.step / status.max_step) if status.max_step and status.step >= 0 else None,
        "eta": eta,
        "rate": rate,
        "duration": ended - status.started if 0 < status.started <= ended else None,
        "started": began(facts) or None,
        "device": readable(config_device)[:60] if isinstance(config_device, str) else "",
        "group": facts.group,
        "tags": [readable(tag) for tag in facts.notes.tags],
        "note": readable(facts.notes.note)[:300],
        "archived": facts.notes.archived,
        "series": series,
    }


def series_values(facts: Facts, table: Table) -> dict[str, list[float | None]]:
    """The last and the best finite value of each series of a run."""
    values: dict[str, list[float | None]] = {}
    for name, columns in usable_series(facts.series, table).items():
        column = table.column(columns[1])
        if column is None:
            continue
        finite = column[np.isfinite(column)]
        if len(finite):
            best = finite.max() if best_mode(facts.trainer, name, columns[1]) == "max" else finite.min()
            values[readable(name)] = [float(finite[-1]), float(best)]
    return values


def pace(facts: Facts, table: Table | None) -> tuple[float | None, float | None]:
    """Return steps per second, and the seconds left of a running run at that rate; None if unknown."""
    status = facts.status
    rate = steps_per_second(table, since=status.started) if table is not None else None
    left = status.max_step - status.step if status.max_step else None
    return rate, left / rate if facts.state == "running" and left is not None and left >= 0 and rate else None


def steps_per_second(table: Table, *, since: float) -> float | None:
    """Compute the rate over the last rows of a log, or None where its clock or steps do not advance.

    Rows from before ``since``, in Unix seconds, are left out: the pause before a resume is not training.
    """
    first = max(0, table.rows - _RATE_ROWS)
    clock, step = table.column("time", first), table.column("step", first)
    if clock is None or step is None:
        return None
    current = clock >= since
    clock, step = clock[current], step[current]
    if len(clock) < 2:
        return None
    seconds = number(float(clock[-1] - clock[0]))
    steps = number(float(step[-1] - step[0]))
    return steps / seconds if seconds and steps and seconds > 0 and steps > 0 else None


def began(facts: Facts) -> float:
    """Return when a run was started, in Unix seconds, or 0."""
    return facts.status.started or number(facts.info.get("created")) or 0.0


def usable_series(series: Mapping[str, Any], table: Table) -> dict[str, list[str]]:
    """Return the well-formed series of a run; without any, one for each column with numbers."""
    found = {readable(name): list(columns) for name, columns in series.items() if is_pair(columns)}
    if found or not table.columns:
        return found
    x = "step" if "step" in table.columns else table.columns[0]
    return {
        column: [x, column]
        for column in table.columns
        if column not in (x, "epoch", "time") and _has_numbers(table, column)
    }


def _has_numbers(table: Table, column: str) -> bool:
    values = table.column(column)
    return values is not None and bool(np.isfinite(values).any())
