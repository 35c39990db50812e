"""One run as the table of runs shows it, and its form in the cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.rows import summary
from darkit.dashboard.reading.tail import Table

_NUMBER = (int, float, type(None))
_PLAIN = {str, bool, *_NUMBER}
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "state", "problem", "reason", "model", "project", "device", "group", "note"), str),
    **dict.fromkeys(("opens", "archived"), bool),
    **dict.fromkeys(("step", "max_step", "progress", "eta", "rate", "duration", "started"), _NUMBER),
    "tags": list,
    "series": dict,
}
KIND = f"table 1 {' '.join(_TYPES)}"  # another number when values change their meaning


@dataclass(frozen=True)
class Entry:
    """One run as the table shows it.

    Attributes:
        folder: The run directory.
        name: Its address, as text that can be shown.
        text: The row as JSON, without config values; texts wait for the page in the form in which they are sent.
        config: Every config value by a flat key.
        tags: Its tags.
        began: When it was started, in Unix seconds, or 0.
        version: The look at which it last changed.
    """

    folder: Path
    name: str
    text: str
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
    return _entry(facts.folder, summary(facts, table), config, facts.notes.tags, version)


def _entry(folder: Path, row: dict[str, Any], config: dict[str, Any], tags: tuple[str, ...], version: int) -> Entry:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Entry(folder, row["name"], text, config, tags, row["started"] or 0.0, version)


def to_cache(entry: Entry) -> list[Any]:
    """Return the value to cache for an entry."""
    return [entry.row, dict(entry.config), list(entry.tags)]


def from_cache(value: Any, folder: Path, name: str, version: int) -> Entry | None:
    """Return the entry of a value in the cache, or None if it has another form."""
    if not (isinstance(value, list) and len(value) == 3):
        return None
    row, config, tags = value
    if not (
        isinstance(row, dict) and row.keys() == _TYPES.keys() and isinstance(config, dict) and isinstance(tags, list)
    ):
        return None
    if not all(map(isinstance, map(row.__getitem__, _TYPES), _TYPES.values())):
        return None
    if not {str}.issuperset(map(type, (*tags, *row["tags"]))) or not _PLAIN.issuperset(map(type, config.values())):
        return None
    if not all(map(_is_pair, row["series"].values())):
        return None
    try:
        return _entry(folder, {**row, "name": readable(name)}, config, tuple(tags), version)
    except ValueError:  # not a number
        return None


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(item, _NUMBER) for item in pair)
