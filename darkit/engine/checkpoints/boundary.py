"""Generators, buffers, metrics and settings at the end of the last step, which the next batch already changes."""

from __future__ import annotations

import _random
import ctypes
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from darkit.engine.checkpoints.marks import WeightMarks
from darkit.engine.checkpoints.settings import OptimizerSettings
from darkit.engine.device import plain_states
from darkit.engine.metrics.gathering import copy_states, metrics_of
from darkit.engine.spiking.states import States

_PYTHON: Any = getattr(random.getstate, "__self__", None)  # the generator behind the functions of `random`
_LARGE = 1 << 24  # bytes; larger buffers are only checked for changes
_EXTRA = "_extra_state"  # torch's name for it in a state_dict
_STATE = 2500  # bytes of MT19937, numpy's and Python's: 624 words and a position


class Boundary:
    """Copies of generators and buffers at the end of every step, to save that step when the next batch fails.

    By then the forward pass has drawn dropout masks and updated running means, and callbacks may have set the next
    learning rate. The state of the optimizer changes only in the optimizer step and needs no copy, and neither do
    weights, unless a model or callback changes some before it: `check_weights` raises if one has changed. Buffers of
    more than 16 MiB are not copied: `buffers` raises likewise.

    Attributes:
        settings: The settings of optimizers and the place of schedules.
        neuron_states: The hidden state of neurons at the end of the last step, if it is kept.
        metrics: The states of the module's torchmetrics objects at the end of the last step.
    """

    def __init__(self) -> None:
        self._has_cuda = torch.cuda.is_available()
        self._module: nn.Module | None = None
        self._places: list[tuple[str, nn.Module, str]] = []
        self._copies: list[Tensor | None] = []
        self._marks: list[tuple[int, int]] = []
        self._extras: list[tuple[str, nn.Module]] = []
        self._extra: dict[str, Any] = {}
        self._weights: WeightMarks | None = None
        self._metrics: dict[str, Any] = {}
        self._python: tuple[Any, ...] = ()
        self._python_address = _find_python_state()
        self._python_bytes = b""
        self._torch: Tensor | None = None
        self._cuda: list[Tensor] = []
        self._numpy_bytes = b""
        self._numpy: Any = None
        self.settings = OptimizerSettings()
        self.neuron_states: States = {}
        self.metrics: dict[str, Any] = {}

    def record(
        self,
        module: nn.Module,
        neuron_states: States | None = None,
        optimizers: Sequence[Optimizer] = (),
        schedules: Sequence[Any] = (),
    ) -> None:
        """Record the current state.

        Args:
            module: The one that checkpoints contain.
            neuron_states: The hidden state of neurons that is kept from batch to batch, a copy.
            optimizers: The optimizers whose state checkpoints contain.
            schedules: The torch schedules of them.
        """
        self.settings.record(optimizers, schedules)
        self.neuron_states = neuron_states or {}
        self._record_python()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if self._has_cuda else []
        self._record_numpy()
        if module is not self._module:
            self._module, self._places = module, list(_places(module))
            self._copies, self._marks = [None] * len(self._places), [(0, 0)] * len(self._places)
            self._weights, self._metrics = WeightMarks(module), metrics_of(module)
            self._extras = list(_extras(module))
        if self._places:
            self._record_buffers()
        if self._weights is not None:
            self._weights.record()
        if self._extras:
            self._extra = {name: _copied(part.get_extra_state()) for name, part in self._extras}
        if self._metrics:
            self.metrics = copy_states(self._metrics)

    def generators(self) -> dict[str, Any]:
        """Return the generators' states in the form of `darkit.engine.device.generator_states`."""
        return plain_states(self._python, self._numpy, self._torch, self._cuda)

    def buffers(self) -> Mapping[str, Any]:
        """Return buffers and what ``get_extra_state`` returned, by their names in the module's ``state_dict``.

        Raises:
            ValueError: A large buffer has changed.
        """
        found = dict(self._extra)
        for (name, part, key), copy, mark in zip(self._places, self._copies, self._marks, strict=True):
            if copy is not None:
                found[name] = copy
            elif _mark(part._buffers[key]) != mark:
                raise ValueError(f"the buffer {name!r} has changed since, and is too large to be kept twice")
        return found

    def check_weights(self) -> None:
        """Raise `ValueError` if a weight has changed since the end of the step."""
        changed = self._weights.changed() if self._weights is not None else ""
        if changed:
            raise ValueError(f"the weight {changed!r} has changed since the end of the step, before the next one")

    def _record_python(self) -> None:
        """Read Python's state only if it may have changed; it takes as long as a small layer."""
        if self._python_address:
            now = ctypes.string_at(self._python_address, _STATE)
            if now == self._python_bytes and _PYTHON.gauss_next == self._python[2]:
                return
            self._python_bytes = now
        self._python = random.getstate()

    def _record_numpy(self) -> None:
        """Read numpy's state only if it may have changed; it is slow."""
        generator = numpy.random.mtrand._rand._bit_generator
        now = b""
        if isinstance(generator, numpy.random.MT19937):
            now = ctypes.string_at(generator.ctypes.state_address, _STATE)
            if now == self._numpy_bytes and not self._numpy[3]:  # a normal number kept for later is not in these bytes
                return
        self._numpy_bytes, self._numpy = now, numpy.random.get_state(legacy=True)

    def _record_buffers(self) -> None:
        copies, values = [], []
        for index, (_, part, key) in enumerate(self._places):
            value = part._buffers[key]
            if value is None or value.numel() * value.element_size() > _LARGE:
                self._copies[index], self._marks[index] = None, _mark(value)
                continue
            copy = self._copies[index]
            if copy is None or not _alike(copy, value):
                self._copies[index] = value.detach().clone()
                continue
            copies.append(copy)
            values.append(value)
        if copies:
            with torch.no_grad():
                torch._foreach_copy_(copies, values)


def _find_python_state() -> int:
    """Return the address of the state of Python's generator, or 0 where it is not where CPython has it."""
    start = object.__basicsize__
    if _PYTHON is None or _random.Random.__basicsize__ < start + _STATE:
        return 0
    position, *words = struct.unpack("i624I", ctypes.string_at(id(_PYTHON) + start, _STATE))
    return id(_PYTHON) + start if (*words, position) == random.getstate()[1] else 0


def _places(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield the persistent buffers: name, module and name in the module."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        for key, value in part._buffers.items():
            if value is not None and key not in part._non_persistent_buffers_set:
                yield f"{prefix}.{key}" if prefix else key, part, key


def _extras(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules with state besides weights and buffers, with its name in the ``state_dict``."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        if type(part).get_extra_state is not nn.Module.get_extra_state:
            yield f"{prefix}.{_EXTRA}" if prefix else _EXTRA, part


def _copied(value: Any) -> Any:
    """Return a copy; torch copies only tensors that are part of no graph."""
    return deepcopy(tree_map_only(Tensor, Tensor.detach, value))


def _alike(copy: Tensor, value: Tensor) -> bool:
    same = copy.shape == value.shape and copy.dtype == value.dtype and copy.device == value.device
    return same and value.layout is torch.strided


def _mark(value: Tensor | None) -> tuple[int, int]:
    return (0, 0) if value is None else (id(value), value._version)
