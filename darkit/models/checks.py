"""Checks of settings in the models' configs.

Each raises `ValueError` with the setting, its value and the valid range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def check_sizes(config: Any, *names: str) -> None:
    """Check settings that must be whole numbers of at least 1."""
    for name in names:
        _check_size(name, getattr(config, name))


def check_layers(config: Any, name: str) -> None:
    """Check a setting that must be a list of layer sizes."""
    value = getattr(config, name)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{name} must be a list of whole numbers, not {value!r}.")
    for place, size in enumerate(value):
        _check_size(f"{name}[{place}]", size)


def check_multiple(config: Any, whole: str, part: str) -> None:
    """Check that one setting is a multiple of another."""
    if getattr(config, whole) % getattr(config, part):
        values = getattr(config, whole), getattr(config, part)
        raise ValueError(f"{whole} ({values[0]}) must be a multiple of {part} ({values[1]}).")


def check_share(config: Any, name: str) -> None:
    """Check a setting that must be a number from 0 to below 1."""
    value = getattr(config, name)
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number from 0 to below 1, not {value!r}.")


def check_positive(config: Any, name: str) -> None:
    """Check a setting that must be a finite number above 0."""
    value = getattr(config, name)
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, not {value!r}.")


def check_flag(config: Any, name: str) -> None:
    """Check a setting that must be true or false."""
    value = getattr(config, name)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}.")


def check_choice(config: Any, name: str, choices: Sequence[str]) -> None:
    """Check a setting that must be one of several names."""
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def _check_size(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, not {value!r}.")
