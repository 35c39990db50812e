"""One run as the table of runs shows it, and its form in the cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.rows import ROW_SERIES, pairs_of, summary
from darkit.dashboard.reading.series import declared_series
from darkit.dashboard.reading.tail import Table
from darkit.runs.numbers import ODD_WORDS

_NUMBER = (int, float, type(None))
_PLAIN = {str, bool, *_NUMBER}
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "state", "problem", "reason", "model", "project", "device", "group", "note", "lost"), str),
    **dict.fromkeys(("opens", "archived"), bool),
    **dict.fromkeys(("step", "max_step", "progress", "eta", "rate", "duration", "started", "diverged"), _NUMBER),
    "tags": list,
}
KIND = f"table 4 {' '.join(_TYPES)}"  # another number when values change their meaning


@dataclass(frozen=True)
class Metric:
    """A metric of a run: its name, whether the run declares it, and whether high or low values of it are better."""

    name: str
    declared: bool
    ranked: bool


@dataclass(frozen=True)
class Entry:
    """One run as the table shows it.

    Attributes:
        folder: The run directory.
        name: Its address, as text that can be shown.
        text: The row as JSON, without config values and with the values of its first metrics; texts wait for the page
            in the form in which they are sent.
        more: The values of its other metrics, as JSON; empty without any.
        metrics: Its metrics, in the order in which they are shown.
        config: Every config value by a flat key.
        tags: Its tags.
        began: When it was started, in Unix seconds, or 0.
        version: The look at which it last changed.
    """

    folder: Path
    name: str
    text: str
    more: str
    metrics: tuple[Metric, ...]
    config: Mapping[str, Any]
    tags: tuple[str, ...]
    began: float
    version: int

    @property
    def row(self) -> dict[str, Any]:
        """The row, as it is sent to the page."""
        values: dict[str, Any] = json.loads(self.text)
        return values


def entry_of(facts: Facts, table: Table | None, version: int) -> Entry:
    """Make the entry of a run from its small files and its log."""
    config = {sys.intern(key): value for key, value in facts.config_values().items()}
    row, values = summary(facts, table)
    declared = declared_series(facts.series)
    metrics = [Metric(name, name in declared, value.ranked) for name, value in values.items()]
    return _entry(facts.folder, row, pairs_of(values), metrics, config, facts.notes.tags, version)


def _entry(
    folder: Path,
    row: dict[str, Any],
    pairs: dict[str, list[Any]],
    metrics: Sequence[Metric],
    config: dict[str, Any],
    tags: tuple[str, ...],
    version: int,
) -> Entry:
    names = list(pairs)
    text = _json({**row, "series": {name: pairs[name] for name in names[:ROW_SERIES]}})
    more = {name: pairs[name] for name in names[ROW_SERIES:]}
    shared = _shared(tuple(metrics))
    began = row["started"] or 0.0
    return Entry(folder, row["name"], text, _json(more) if more else "", shared, config, tags, began, version)


@lru_cache(4096)
def _shared(metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """Return the same object for equal metrics: most runs of a home have those of others."""
    return metrics


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def to_cache(entry: Entry) -> list[Any]:
    """Return the value to cache for an entry."""
    row = entry.row
    pairs = {**row.pop("series"), **(json.loads(entry.more) if entry.more else {})}
    metrics = [[one.name, one.declared, one.ranked] for one in entry.metrics]
    return [row, pairs, metrics, dict(entry.config), list(entry.tags)]


def from_cache(value: Any, folder: Path, name: str, version: int) -> Entry | None:
    """Return the entry of a value in the cache, or None if it has another form."""
    if not (isinstance(value, list) and len(value) == 5):
        return None
    row, pairs, metrics, config, tags = value
    if not (isinstance(row, dict) and row.keys() == _TYPES.keys() and isinstance(config, dict)):
        return None
    if not (isinstance(pairs, dict) and isinstance(metrics, list) and isinstance(tags, list)):
        return None
    if not all(map(isinstance, map(row.__getitem__, _TYPES), _TYPES.values())):
        return None
    if not {str}.issuperset(map(type, (*tags, *row["tags"]))) or not _PLAIN.issuperset(map(type, config.values())):
        return None
    if not all(map(_is_pair, pairs.values())) or not all(map(_is_metric, metrics)):
        return None
    if [one[0] for one in metrics] != list(pairs):
        return None
    try:
        named = {**row, "name": readable(name)}
        return _entry(folder, named, pairs, [Metric(*one) for one in metrics], config, tuple(tags), version)
    except ValueError:  # not a number
        return None


def _is_pair(pair: Any) -> bool:
    if not (isinstance(pair, list) and 2 <= len(pair) <= 3):
        return False
    return (isinstance(pair[0], int | float) or pair[0] in ODD_WORDS) and all(
        isinstance(one, _NUMBER) for one in pair[1:]
    )


def _is_metric(value: Any) -> bool:
    return isinstance(value, list) and list(map(type, value)) == [str, bool, bool]
