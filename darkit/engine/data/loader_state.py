"""The state of loaders, samplers and streams without a ``state_dict``: generators and counters in attributes.

Examples are a sampler with its own epoch counter, and a stream that shuffles its list of files in place.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from darkit.engine.data.order import PlacedSampler

Generator = torch.Generator | random.Random | numpy.random.Generator | numpy.random.RandomState

_INNER = (  # attributes that hold further parts
    "dataset",
    "datasets",
    "sampler",
    "batch_sampler",
    "batches",
    "transform",
    "target_transform",
    "transforms",
)
_SCALARS = (type(None), bool, int, float, str)
_MOST_ELEMENTS = 2**20
_PLAIN_LOADER = frozenset(vars(DataLoader(TensorDataset(torch.zeros(1)))))


class LoaderState:
    """The state of a loader and its parts in plain attributes.

    It includes generators of `torch`, `random` and `numpy` of any part, and changed scalars, lists, arrays and tensors
    of samplers, iterable datasets and subclasses of DataLoader.

    Args:
        loader: A loader.
        without: A part that has its own ``state_dict``, or None.
    """

    def __init__(self, loader: Any, *, without: Any = None) -> None:
        workers = getattr(loader, "num_workers", 0)  # they use copies of the dataset
        self._parts = {
            name: part
            for name, part in parts_of(loader)
            if part is not without and not (workers and is_in_dataset(name)) and not _is_ours(part)
        }
        self._first = {
            name: {key: _mark_of(value) for key, value in _counted(part)} for name, part in self._parts.items()
        }

    def has_generators(self) -> bool:
        """Return whether any part has its own generator."""
        return any(True for part in self._parts.values() for _ in generators_of(part))

    def state(self, *, everything: bool = False) -> dict[str, Any]:
        """Return the state in a form that ``torch.load(weights_only=True)`` reads.

        Args:
            everything: Whether to include unchanged values.
        """
        state: dict[str, Any] = {}
        seen: set[int] = set()
        for name, part in self._parts.items():
            generators = {key: _state_of(one) for key, one in generators_of(part) if id(one) not in seen}
            seen |= {id(one) for _, one in generators_of(part)}
            first = self._first[name]
            counted = {
                key: _copied(value)
                for key, value in _counted(part)
                if everything or key not in first or first[key] != _mark_of(value)
            }
            if generators or counted:
                state[name] = {"generators": generators, "counted": counted}
        return state

    def restore(self, state: Any) -> None:
        """Load a state returned by `state`."""
        if isinstance(state, list):  # an older checkpoint: only torch's generators
            found = [one for part in self._parts.values() for _, one in generators_of(part)]
            unique = {id(one): one for one in found if isinstance(one, torch.Generator)}
            _restore_generators(dict(enumerate(unique.values())), dict(enumerate(state)))
            return
        for name, held in (state or {}).items():
            part = self._parts.get(name)
            if part is None:
                continue
            _restore_generators(dict(generators_of(part)), held["generators"])
            for key, value in held["counted"].items():
                before = vars(part).get(key)
                value = _copied(value)
                vars(part)[key] = value.numpy() if isinstance(before, numpy.ndarray) else value


def parts_of(loader: Any) -> Iterator[tuple[str, Any]]:
    """Yield a loader and its datasets and samplers by name, each once."""
    seen: set[int] = set()

    def walk(part: Any, name: str) -> Iterator[tuple[str, Any]]:
        if part is None or id(part) in seen or isinstance(part, Tensor | numpy.ndarray | str | bytes | range):
            return
        seen.add(id(part))
        if isinstance(part, list | tuple | Mapping):
            if name.endswith(("datasets", "transforms")):
                for index, item in enumerate(part.values() if isinstance(part, Mapping) else part):
                    yield from walk(item, f"{name}.{index}")
            return
        if type(part).__module__.partition(".")[0] == "datasets":  # they have set_epoch
            return
        yield name, part
        attributes = getattr(part, "__dict__", {})
        for inner in _INNER:
            if inner in attributes:
                yield from walk(attributes[inner], f"{name}.{inner}")

    yield from walk(loader, "loader")


def _is_ours(part: Any) -> bool:
    """Return whether a loader or batch sampler is in darkit's order."""
    return isinstance(getattr(part, "batch_sampler", part), PlacedSampler)


def is_in_dataset(name: str) -> bool:
    """Return whether a name from `parts_of` is that of a dataset or of a part of one."""
    return name.startswith("loader.dataset")


def generators_of(part: Any) -> Iterator[tuple[str, Generator]]:
    """Yield the generators in a part's attributes, by name."""
    for key, value in getattr(part, "__dict__", {}).items():
        if isinstance(value, Generator) and not isinstance(value, random.SystemRandom):
            yield key, value


def _counted(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that a sampler or a stream may change during iteration."""
    attributes = getattr(part, "__dict__", {})
    if isinstance(part, DataLoader):
        attributes = {key: value for key, value in attributes.items() if key not in _PLAIN_LOADER}
    elif hasattr(part, "__getitem__") and not isinstance(part, IterableDataset):  # a map-style dataset
        return
    for key, value in attributes.items():
        if _is_counter(value):
            yield key, value


def _is_counter(value: Any) -> bool:
    if type(value) is Tensor:
        return value.layout is torch.strided and value.numel() <= _MOST_ELEMENTS
    if type(value) is numpy.ndarray:
        return value.dtype.kind in "biuf" and value.size <= _MOST_ELEMENTS
    if type(value) is list:
        return len(value) <= _MOST_ELEMENTS and all(type(item) in _SCALARS for item in value)
    return type(value) in _SCALARS


def _mark_of(value: Any) -> Any:
    """Return a value that is equal only for equal content."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape, hash(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(value, numpy.ndarray):
        return value.dtype, value.shape, hash(value.tobytes())
    return hash(tuple(value)) if isinstance(value, list) else (type(value), value)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, numpy.ndarray):
        return torch.from_numpy(value.copy())
    return value[:] if isinstance(value, list) else value


def _state_of(generator: Generator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        version, internal, gauss = generator.getstate()
        return [version, list(internal), gauss]
    if isinstance(generator, numpy.random.RandomState):
        return _plain(generator.get_state(legacy=False))
    return _plain(generator.bit_generator.state)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, numpy.ndarray | numpy.generic) else value


def _restore_generators(generators: Mapping[Any, Generator], states: Mapping[Any, Any]) -> None:
    for key, generator in generators.items():
        if key not in states:
            continue
        state = states[key]
        if isinstance(generator, torch.Generator):
            generator.set_state(state.cpu())
        elif isinstance(generator, random.Random):
            generator.setstate((state[0], tuple(state[1]), state[2]))
        elif isinstance(generator, numpy.random.RandomState):
            generator.set_state(_arrays(state))
        else:
            generator.bit_generator.state = _arrays(state)


def _arrays(value: Any) -> Any:
    """Convert the lists in a NumPy generator's state to arrays."""
    if isinstance(value, Mapping):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return numpy.array(value, dtype=numpy.uint64 if max(value) >= 2**32 else numpy.uint32)
    return value
