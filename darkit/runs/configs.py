"""Configs as JSON: which values a config has, and how they are written for people and read back."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import math
import os
from collections.abc import Mapping, Sequence, Set
from types import MemberDescriptorType, SimpleNamespace
from typing import Any

NAMESPACES = (argparse.Namespace, SimpleNamespace)
_MOST_NUMBERS = 4096  # of an array that is written into a config


def public_values(config: Any) -> dict[str, Any]:
    """Collect every public value of a config.

    The values of instances come over those of their classes, and class attributes count also without an annotation, so
    ``device = "cuda"`` in the body of a config class is a value too. Methods, properties and private names are left
    out, and so is a function or class that is the default of its field: the class has it already.

    Args:
        config: A dataclass instance, a mapping, a named tuple, or any object with attributes.

    Returns:
        Value by name, JSON all the way down.
    """
    return {_key(key): plain(value) for key, value in attributes_of(config).items()}


def attributes_of(config: Any) -> dict[Any, Any]:
    """Collect what `public_values` does, with every value as it is."""
    if isinstance(config, Mapping):
        return dict(config)
    if callable(getattr(config, "_asdict", None)):  # a named tuple
        return dict(config._asdict())
    defaults: dict[str, Any] = {}
    for cls in reversed(type(config).__mro__[:-1]):
        defaults.update(vars(cls))
    slots = [name for name, value in defaults.items() if isinstance(value, MemberDescriptorType)]
    fields = [field.name for field in dataclasses.fields(config)] if dataclasses.is_dataclass(config) else []
    own = {name: getattr(config, name) for name in (*slots, *fields) if hasattr(config, name)}
    own.update(getattr(config, "__dict__", {}))
    values = {name: value for name, value in defaults.items() if not (callable(value) or hasattr(value, "__get__"))}
    values |= {name: value for name, value in own.items() if not (callable(value) and value is defaults.get(name))}
    return {name: value for name, value in values.items() if not name.startswith("_")}


def recorded_settings(config: Any) -> dict[str, Any]:
    """Return what ``run.json`` records of a trainer's config: its seed, and which settings are not as by default.

    The values of all settings are in ``trainer_config.json``.
    """
    given = []
    for field in dataclasses.fields(config):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if default is dataclasses.MISSING or plain(getattr(config, field.name)) != plain(default):
            given.append(field.name)
    return {"seed": config.seed, "settings_given": given}


def plain(value: Any) -> Any:
    """Turn a value into one that JSON can hold; what has no such form becomes its text."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, NAMESPACES):
        return {key: plain(item) for key, item in vars(value).items()}
    if isinstance(value, Set):
        return [plain(item) for item in sorted(value, key=str)]  # the same in every process
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item) for item in value]
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):  # a scalar of numpy or torch
        return plain(value.item())
    if is_short_array(value):
        return plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return public_values(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def is_short_array(value: Any) -> bool:
    """Return whether a value is an array or a tensor that is short enough to be a setting."""
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and callable(getattr(value, "tolist", None)) and math.prod(shape) <= _MOST_NUMBERS


def _key(key: Any) -> str:
    return str(plain(key)) if callable(getattr(key, "item", None)) else str(key)
