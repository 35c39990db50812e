"""A copy of the state in host memory, taken fast enough to go on training at once."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

_Key = tuple[Any, ...]
_NUMBERS = tuple(map(numpy.dtype, ("bool", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16")))
_NEVER_CHANGE = frozenset((type(None), bool, int, float, complex, str, bytes))


ARRAYS = "numpy_arrays"
"""Where a checkpoint notes which of its tensors were NumPy arrays, as lists of keys."""


def plain_number(value: Any) -> Any:
    """Returns a NumPy number as Python's, and anything else as it is."""
    return value.item() if isinstance(value, numpy.generic) else value


def is_array_of_numbers(value: Any) -> bool:
    """Says whether a value is a NumPy array that a tensor can hold."""
    return type(value) is numpy.ndarray and value.dtype in _NUMBERS


def with_arrays(content: dict[str, Any]) -> dict[str, Any]:
    """Gives the content of a checkpoint its NumPy arrays back, in place.

    Raises:
        LookupError: A place that is noted is not there.
        TypeError: A place is none, or holds no tensor.
    """
    for place in content.pop(ARRAYS, ()):
        _put_array(content, list(place))
    return content


def _put_array(value: Any, place: list[Any]) -> Any:
    if not place:
        if not isinstance(value, Tensor):
            raise TypeError(f"no tensor but {type(value).__name__}")
        return value.cpu().numpy()
    key, *inner = place
    if isinstance(value, tuple):
        return tuple(_put_array(item, inner) if index == key else item for index, item in enumerate(value))
    value[key] = _put_array(value[key], inner)
    return value


class Snapshot:
    """Takes copies of nested state into host buffers that are kept for the next copy.

    The first copy allocates; those after it only copy, which costs a third of a clone. Buffers of what is on a CUDA
    device are pinned and filled without waiting for it: `wait` does that, on whatever thread reads the copy. From any
    other device the copy is complete when `take` returns.
    Tensors that are the same memory, such as tied weights, are one buffer.
    """

    def __init__(self) -> None:
        self._buffers: dict[_Key, Tensor] = {}
        self._events: list[torch.cuda.Event] = []

    def take(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Copies everything that may change: tensors into buffers, containers and objects as they are.

        What NumPy has becomes what ``torch.load(weights_only=True)`` takes: a number Python's, also as a key, and an
        array a tensor, whose place is noted in ``numpy_arrays``.

        Returns:
            The same structure. It is overwritten by the next call.
        """
        used: dict[_Key, Tensor] = {}
        shared: dict[_Key, Tensor] = {}
        devices: set[torch.device] = set()
        arrays: list[list[Any]] = []

        def copied(value: Any, path: _Key) -> Any:
            if type(value) in _NEVER_CHANGE:
                return value
            if isinstance(value, Tensor) and value.layout is not torch.strided:
                return value.detach().to("cpu", copy=True)
            if isinstance(value, Tensor):
                same = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
                if value.numel() == 0 or same not in shared:
                    shared[same] = used[path] = self._fill(path, value.detach())
                    devices.add(value.device)
                return shared[same]
            if isinstance(value, Mapping):
                items = {plain_number(key): copied(item, (*path, plain_number(key))) for key, item in value.items()}
                return _like(value, items)
            if type(value) in (list, tuple):
                return type(value)(copied(item, (*path, index)) for index, item in enumerate(value))
            if is_array_of_numbers(value):
                arrays.append(list(path))
                return torch.from_numpy(value.copy())
            return value.item() if isinstance(value, numpy.generic) else copy.deepcopy(value)

        result = {key: copied(value, (key,)) for key, value in content.items()}
        if arrays:
            result[ARRAYS] = arrays
        self._buffers = used
        self._events = []
        for device in devices:
            if device.type == "cuda":
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(device))
                self._events.append(event)
        return result

    def wait(self) -> None:
        """Waits until the copy is complete."""
        for event in self._events:
            event.synchronize()

    def _fill(self, path: _Key, value: Tensor) -> Tensor:
        buffer = self._buffers.get(path)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            pinned = value.device.type == "cuda"
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
        return buffer.copy_(value, non_blocking=value.device.type == "cuda")  # of no other is the end known to `wait`


def _like(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Gives items the kind of mapping they came in: a state dict keeps its versions in an attribute."""
    if type(value) is dict:
        return items
    if type(value) is OrderedDict:
        ordered = OrderedDict(items)
        ordered.__dict__.update(copy.deepcopy(value.__dict__))
        return ordered
    copied: Any = copy.copy(value)
    copied.clear()  # keys too may have changed
    for key, item in items.items():  # not update, which adds the counts of a Counter
        copied[key] = item
    return copied
