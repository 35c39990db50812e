"""Types that JSON lacks, recorded with a config's values to restore them exactly."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from torch import Tensor

from darkit.errors import ModelError
from darkit.runs.configs import NAMESPACES, is_short_array, plain

_Place = tuple[str, ...]
_KEYS: dict[type, str] = {int: "int keys", float: "float keys"}


def types_of(values: Mapping[Any, Any]) -> dict[str, str]:
    """Return the types that JSON would change.

    Args:
        values: The original values.

    Returns:
        Path -> type, such as ``{"/sizes/0": "tuple"}``; the empty path is the mapping itself.
    """
    return {"".join(f"/{_escaped(part)}" for part in place): kind for place, kind in _walk(values, ())}


def restore(values: Any, types: Mapping[str, str]) -> Any:
    """Restore the types from `types_of` in values read from JSON.

    Raises:
        ModelError: A type or path is unknown.
    """
    places = {tuple(map(_unescaped, text.split("/")[1:])): text for text in types}
    for place in sorted(places, key=len, reverse=True):  # inner values first
        kind = types[places[place]]
        try:
            values = _changed_at(values, place, _maker(kind))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"config.json has no {kind!r} at {places[place]!r} ({type(error).__name__}).") from error
    return values


def _walk(value: Any, place: _Place) -> Iterator[tuple[_Place, str]]:
    if isinstance(value, Mapping):
        kinds = {type(plain(key)) for key in value}
        if len(kinds) == 1 and (kind := _KEYS.get(kinds.pop())) is not None:
            yield place, kind
        for key, item in value.items():
            yield from _walk(item, (*place, str(plain(key))))
    elif isinstance(value, list | tuple):
        if type(value) in (tuple, torch.Size):
            yield place, "tuple"
        for index, item in enumerate(value):
            yield from _walk(item, (*place, str(index)))
    elif type(value) in NAMESPACES:
        yield place, type(value).__name__
        yield from _walk(vars(value), place)
    else:
        kind = _kind(value)
        if kind:
            yield place, kind


def _kind(value: Any) -> str:
    if type(value) in (set, frozenset, complex):
        return type(value).__name__
    if isinstance(value, PurePath):
        return "path"
    if isinstance(value, torch.dtype | torch.device):
        return type(value).__name__
    if isinstance(value, numpy.ndarray) and is_short_array(value):
        return f"array {value.dtype}"
    if isinstance(value, Tensor) and value.ndim and is_short_array(value):
        return f"tensor {str(value.dtype).removeprefix('torch.')}"
    return ""


def _maker(kind: str) -> Callable[[Any], Any]:
    makers: dict[str, Callable[[Any], Any]] = {
        "tuple": tuple,
        "set": set,
        "frozenset": frozenset,
        "complex": complex,
        "path": Path,
        "Namespace": lambda value: argparse.Namespace(**value),
        "SimpleNamespace": lambda value: SimpleNamespace(**value),
        "dtype": _dtype,
        "device": torch.device,
        "int keys": lambda value: {int(key): item for key, item in value.items()},
        "float keys": lambda value: {float(key): item for key, item in value.items()},
    }
    name, _, dtype = kind.partition(" ")
    if name == "array":
        return lambda value: numpy.array(value, dtype=dtype)
    if name == "tensor":
        return lambda value: torch.tensor(value, dtype=_dtype(dtype))
    if kind not in makers:
        raise ModelError(f"run.json has an unknown type {kind!r} for a value in config.json.")
    return makers[kind]


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name.removeprefix("torch."))
    if not isinstance(found, torch.dtype):
        raise ValueError(name)
    return found


def _changed_at(values: Any, place: _Place, make: Callable[[Any], Any]) -> Any:
    """Return values with the one at a path converted."""
    if not place:
        return make(values)
    first, *others = place
    if isinstance(values, dict):
        return values | {first: _changed_at(values[first], tuple(others), make)}
    changed = list(values)
    changed[int(first)] = _changed_at(changed[int(first)], tuple(others), make)
    return changed


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
