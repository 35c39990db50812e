"""The configs of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.facts import readable
from darkit.runs.numbers import number_text

MISSING = "–"
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


def config_rows(shown: Sequence[Shown]) -> list[KeyRow]:
    """Return the configs side by side, differing keys first."""
    all_keys = [run.facts.config_values() for run in shown]
    names = dict.fromkeys(key for keys in all_keys for key in keys if key not in _UNINTERESTING)
    rows = [KeyRow(name, tuple(shown_value(keys.get(name, MISSING)) for keys in all_keys)) for name in names]
    return sorted(rows, key=lambda row: not row.differs)


def differing_keys(shown: Sequence[Shown]) -> list[str]:
    """Return the keys in which the runs differ."""
    return [row.key for row in config_rows(shown) if row.differs]


def shown_value(value: Any) -> str:
    """Return a config value as the table shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return number_text(value, 10) if isinstance(value, float) else readable(str(value))
