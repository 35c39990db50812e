"""A fast copy of nested state in host memory, so that training can continue."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy
import torch
from torch import Tensor

from darkit.engine.steps.parts import is_dense

_Key = tuple[Any, ...]
_NUMBERS = tuple(map(numpy.dtype, ("bool", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16")))
_WORTH_THREADS = 2**25  # bytes; a smaller copy is done before a thread has started
_MOST_THREADS = 4  # which reach the bandwidth of most memories
_PIECE = 2**23  # bytes
_IMMUTABLE = frozenset((type(None), bool, int, float, complex, str, bytes))


ARRAYS = "numpy_arrays"
"""Key of the list of paths at which a checkpoint's tensors were NumPy arrays."""


def plain_number(value: Any) -> Any:
    """Convert a NumPy number to a Python number; return other values unchanged."""
    return value.item() if isinstance(value, numpy.generic) else value


def is_array_of_numbers(value: Any) -> bool:
    """Return whether a value is a NumPy array of a dtype that torch supports."""
    return type(value) is numpy.ndarray and value.dtype in _NUMBERS


def with_arrays(content: dict[str, Any]) -> dict[str, Any]:
    """Restore the NumPy arrays in the content of a checkpoint, in place.

    Raises:
        LookupError: A path does not exist.
        TypeError: A path is invalid, or has no tensor.
    """
    for place in content.pop(ARRAYS, ()):
        _put_array(content, list(place))
    return content


def _put_array(value: Any, place: list[Any]) -> Any:
    if not place:
        if not isinstance(value, Tensor):
            raise TypeError(f"{type(value).__name__} instead of a tensor")
        return value.cpu().numpy()
    key, *inner = place
    if isinstance(value, tuple):
        return tuple(_put_array(item, inner) if index == key else item for index, item in enumerate(value))
    value[key] = _put_array(value[key], inner)
    return value


class Snapshot:
    """Copies of nested state in host buffers that are reused for the next copy.

    A copy has the layout in memory of its original, such as channels last: fused optimizers need their state in that of
    the parameters. Only the first copy allocates; later ones take a third of the time of a clone. Buffers for CUDA
    tensors are pinned and filled asynchronously; the thread that reads the copy calls `wait`. From other devices the
    copy is synchronous. Tensors that share memory, such as tied weights, share a buffer.
    """

    def __init__(self) -> None:
        self._buffers: dict[_Key, Tensor] = {}
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._events: list[torch.cuda.Event] = []

    def copy(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Copy all mutable values: tensors into buffers, containers and objects deeply.

        NumPy numbers become Python numbers, also as keys, and arrays become tensors with their paths in
        ``numpy_arrays``, so that ``torch.load(weights_only=True)`` reads them.

        Returns:
            The same structure. The next call overwrites it.
        """
        used: dict[_Key, Tensor] = {}
        shared: dict[_Key, Tensor] = {}
        devices: set[torch.device] = set()
        arrays: list[list[Any]] = []

        def copied(value: Any, path: _Key) -> Any:
            if type(value) in _IMMUTABLE:
                return value
            if isinstance(value, Tensor) and value.layout is not torch.strided:
                return value.detach().to("cpu", copy=True)
            if isinstance(value, Tensor):
                layout = (value.shape, value.stride(), value.dtype)
                same = (value.device, value.data_ptr(), *layout, value.is_conj(), value.is_neg())
                if value.numel() == 0 or same not in shared:
                    shared[same] = used[path] = self._buffer(path, value.detach())
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

        self._pairs = []
        result = {key: copied(value, (key,)) for key, value in content.items()}
        pairs, self._pairs = self._pairs, []
        _copy_all(pairs)
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
        """Wait until the copy is complete."""
        for event in self._events:
            event.synchronize()

    def _buffer(self, path: _Key, value: Tensor) -> Tensor:
        """Return the buffer for a tensor, which is copied once all have one."""
        buffer = self._buffers.get(path)
        strides = (
            value.stride()
            if value.is_contiguous() or is_dense(value)
            else torch.empty(value.shape, device="meta").stride()
        )
        if buffer is None or (buffer.shape, buffer.dtype, buffer.stride()) != (value.shape, value.dtype, strides):
            pinned = value.device.type == "cuda"
            buffer = torch.empty_strided(value.shape, strides, dtype=value.dtype, pin_memory=pinned)
        self._pairs.append((buffer, value))
        return buffer


def _copy_all(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Copy tensors into buffers; from host memory with the cores that torch's own threads leave free."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(_MOST_THREADS, cores // torch.get_num_threads())
    ours = [pair for pair in pairs if pair[1].device.type == "cpu"]
    for buffer, value in pairs:
        if value.device.type != "cpu":  # on the current stream, which is this thread's
            buffer.copy_(value, non_blocking=value.device.type == "cuda")  # `wait` knows CUDA events only
    if threads < 2 or sum(value.nbytes for _, value in ours) < _WORTH_THREADS:
        for buffer, value in ours:
            buffer.copy_(value)
        return
    pieces = deque(_pieces(ours))

    def work() -> None:
        while True:
            try:
                buffer, value = pieces.popleft()
            except IndexError:
                return
            buffer.copy_(value)

    with ThreadPoolExecutor(threads - 1, thread_name_prefix="darkit-copy") as pool:
        jobs = []
        with suppress(RuntimeError):  # at interpreter exit no thread can start
            jobs = [pool.submit(work) for _ in range(threads - 1)]
        work()
        for job in jobs:
            job.result()


def _pieces(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs that together copy the same, large tensors in pieces where that is simple."""
    for buffer, value in pairs:
        if value.nbytes > _PIECE and value.is_contiguous() and buffer.is_contiguous():
            count = _PIECE // value.element_size()
            to, whole = buffer.view(-1), value.view(-1)
            yield from ((to[start : start + count], whole[start : start + count]) for start in range(0, len(to), count))
        else:
            yield buffer, value


def _like(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Return items in a mapping of the original type, with the ``_metadata`` of state dicts."""
    if type(value) is dict:
        return items
    if type(value) is OrderedDict:
        ordered = OrderedDict(items)
        ordered.__dict__.update(copy.deepcopy(value.__dict__))
        return ordered
    copied: Any = copy.copy(value)
    copied.clear()  # keys may have changed
    for key, item in items.items():  # `update` would add the counts of a Counter
        copied[key] = item
    return copied
