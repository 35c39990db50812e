"""The columns of a run's log, and the curves to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from darkit.errors import ConfigError


def check_series(series: Any, name: str = "visual_series") -> Mapping[str, Sequence[str]]:
    """Check curves to show, given as the argument ``name``: name -> [x column, y column]. Raises `ConfigError`."""
    pairs = series.values() if isinstance(series, Mapping) else [None]
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(item, str) for item in pair):
            raise ConfigError(f"{name} must be like {{'train_loss': ['step', 'train_loss']}}, not {series!r}.")
    return series  # type: ignore[no-any-return]


def column_names(log_fieldnames: Any) -> list[str] | None:
    """Return the names of the fields of a dataclass, or None for None. Raises `ConfigError` for anything else."""
    if log_fieldnames is None:
        return None
    if not is_dataclass(log_fieldnames):
        raise ConfigError(f"log_fieldnames must be a dataclass, not {log_fieldnames!r}.")
    return [field.name for field in fields(log_fieldnames)]
