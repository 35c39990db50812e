"""The row of a run in the table of runs, from its small files and its log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.series import Value, divergence, series_values
from darkit.dashboard.reading.sessions import active_seconds, began, pace
from darkit.dashboard.reading.tail import Table
from darkit.runs.numbers import odd_word

ROW_SERIES = 12  # metrics whose values every row has; those of further ones are sent when their columns are shown


def summary(facts: Facts, table: Table | None) -> tuple[dict[str, Any], dict[str, Value]]:
    """Return the row of one run in the table of runs, without its metrics, and the values of its metrics.

    Times are in Unix seconds, durations in seconds.
    """
    status = facts.status
    values = series_values(facts, table) if table is not None else {}
    problem = facts.problem or (table.problem if table is not None else "")
    rate, eta = pace(facts, table)
    lost = divergence(facts, values)
    config_device = facts.trainer.get("device")
    row = {
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
        "duration": active_seconds(facts, table),
        "started": began(facts) or None,
        "diverged": lost[1] if lost else None,
        "lost": lost[0] if lost else "",
        "device": readable(config_device)[:60] if isinstance(config_device, str) else "",
        "group": facts.group,
        "tags": [readable(tag) for tag in facts.notes.tags],
        "note": readable(facts.notes.note)[:300],
        "archived": facts.notes.archived,
    }
    return row, values


def pairs_of(values: Mapping[str, Value]) -> dict[str, list[float | str | None]]:
    """Return the last and the best value of metrics as they are sent: NaN and infinities as words.

    The x of the best value, which is its step, comes third where it is known.
    """
    return {
        name: [as_sent(value.last), value.best, *([] if value.best_at is None else [value.best_at])]
        for name, value in values.items()
    }


def as_sent(value: float) -> float | str:
    """Return a number, or the word for NaN or an infinity, which JSON does not have."""
    return value if abs(value) < float("inf") else odd_word(value)
