"""Configs as JSON: which values a config has, and how they are written for people and read back."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Mapping
from typing import Any


def public_values(config: Any) -> dict[str, Any]:
    """Collects every public value of a config.

    The values of instances come over those of their classes, and class attributes count also without an annotation, so
    ``device = "cuda"`` in the body of a config class is a value too. Methods, properties and private names are left
    out.

    Args:
        config: A dataclass instance, a mapping, or any object with attributes.

    Returns:
        Value by name, JSON all the way down.
    """
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    values: dict[str, Any] = {}
    for cls in reversed(type(config).__mro__[:-1]):
        values.update(vars(cls))
    if dataclasses.is_dataclass(config):
        values.update({field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
    values.update(getattr(config, "__dict__", {}))
    return {
        name: plain(value) for name, value in values.items() if not name.startswith("_") and not _is_behaviour(value)
    }


def plain(value: Any) -> Any:
    """Turns a value into one that JSON can hold; what has no such form becomes its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return public_values(value)
    return str(value)


def _is_behaviour(value: Any) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod) or hasattr(value, "__get__")
