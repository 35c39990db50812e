"""The curves of a run to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darkit.errors import ConfigError


def check_series(series: Any, name: str = "visual_series") -> Mapping[str, Sequence[str]]:
    """Check curves to show, given as the argument ``name``: name -> [x column, y column]. Raises `ConfigError`."""
    pairs = series.values() if isinstance(series, Mapping) else [None]
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(item, str) for item in pair):
            raise ConfigError(f"{name} must be like {{'train_loss': ['step', 'train_loss']}}, not {series!r}.")
    return series  # type: ignore[no-any-return]
