"""A run as JSON for programs: what ``darkit query --json`` prints and ``/api/v1`` answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from darkit.dashboard.reading.entries import Entry
from darkit.dashboard.reading.facts import readable
from darkit.runs.numbers import number_of_word

Number = float | Literal["NaN", "Infinity", "-Infinity"]

_FIELDS = (
    *("name", "state", "step", "max_step", "diverged", "reason", "problem", "started", "duration", "rate", "eta"),
    *("project", "model", "device", "group", "tags", "note", "archived"),
)


def run_json(entry: Entry) -> dict[str, Any]:
    """Return a run with the last and best values of all of its metrics and its config, as values of JSON."""
    row = entry.row
    series: Mapping[str, Sequence[Any]] = {**row["series"], **(json.loads(entry.more) if entry.more else {})}
    return {
        **{field: row[field] for field in _FIELDS},
        "metrics": {name: {"last": as_json(number_of_word(pair[0])), "best": pair[1]} for name, pair in series.items()},
        "config": as_json(entry.config),
    }


def as_json(value: Any) -> Any:
    """Return values that JSON has: a word for NaN and infinities, and text that UTF-8 can encode."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {readable(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
