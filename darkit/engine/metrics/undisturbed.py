"""Running a module without changing it: modes, buffers and neuron states are restored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Piece = TypeVar("Piece")
_NOT_STATE = frozenset(("_parameters", "_modules", "_buffers", "training"))
_DEPTH = 6  # of nested containers that are searched for tensors


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode for a block and restore the module afterwards.

    Restored are modes, buffers, and attributes with tensors, such as the states of spiking and recurrent networks, also
    in lists, dicts, tuples and dataclasses. A list that only grew is kept: it collects results.
    """
    with undisturbed(module):
        module.eval()
        yield


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Restore a module after a block, like `evaluating`, without changing its modes."""
    before = _State(module)
    try:
        yield
    finally:
        before.restore()


def kept(module: nn.Module, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces that a module generates, and restore the module at the end."""
    with undisturbed(module):
        yield from pieces


class _State:
    """The state of all parts of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.modes = {part: part.training for part in module.modules()}
        self.buffers = {part: {name: _Kept(value) for name, value in part._buffers.items()} for part in self.modes}
        self.attributes = {part: {name: _Kept(value) for name, value in _attributes(part)} for part in self.modes}

    def restore(self) -> None:
        for part, mode in self.modes.items():
            part.training = mode
        for part, buffers in self.buffers.items():
            for name, kept in buffers.items():
                kept.restore()
                if part._buffers.get(name) is not kept.value and name in part._buffers:
                    part._buffers[name] = kept.value
        for part, attributes in self.attributes.items():
            for name, value in list(_attributes(part)):
                if name not in attributes and _holds_tensors(value):
                    del part.__dict__[name]
            for name, kept in attributes.items():
                now = part.__dict__.get(name)
                if now is kept.value:
                    kept.restore()
                elif kept.holds_tensors or _holds_tensors(now):
                    kept.restore()
                    part.__dict__[name] = kept.value


class _Kept:
    """A value with copies of its tensors and the items of its containers."""

    def __init__(self, value: Any, depth: int = _DEPTH) -> None:
        self.value = value
        self.copy: Tensor | None = None
        self.version = 0
        self.items: dict[Any, _Kept] | None = None
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) and value.layout is torch.strided and not value.is_inference():
                self.copy, self.version = value.detach().clone(), value._version
        elif depth and (items := _items(value)) is not None:
            self.items = {key: _Kept(item, depth - 1) for key, item in items.items()}
        self.holds_tensors: bool = isinstance(value, Tensor) or any(
            kept.holds_tensors for kept in (self.items or {}).values()
        )

    def restore(self) -> None:
        if isinstance(self.value, Tensor):
            if self.copy is not None and self.value._version != self.version:
                with torch.no_grad():
                    self.value.copy_(self.copy)
            return
        if self.items is None:
            return
        now = _items(self.value) or {}
        changed = now.keys() != self.items.keys() or any(now[key] is not kept.value for key, kept in self.items.items())
        for kept in self.items.values():
            kept.restore()
        if changed and (self.holds_tensors or _holds_tensors(self.value)) and not self._only_grew(now):
            self._restore_items()

    def _only_grew(self, now: Mapping[Any, Any]) -> bool:
        items = self.items or {}
        return isinstance(self.value, list) and all(now.get(key) is kept.value for key, kept in items.items())

    def _restore_items(self) -> None:
        items = {key: kept.value for key, kept in (self.items or {}).items()}
        if isinstance(self.value, list):
            self.value[:] = list(items.values())
        elif isinstance(self.value, dict):
            self.value.clear()
            self.value.update(items)
        elif dataclasses.is_dataclass(self.value):
            for name, item in items.items():
                object.__setattr__(self.value, name, item)


def _attributes(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a part that may be state.

    Those of torch itself are excluded, and weights that pruning and normalisation compute anew in every forward pass.
    """
    for name, value in part.__dict__.items():
        if name in _NOT_STATE or name.endswith(("_hooks", "_hooks_with_kwargs", "_always_called")):
            continue
        if f"{name}_orig" not in part._parameters and f"{name}_g" not in part._parameters:
            yield name, value


def _items(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, nn.Module):
        return None
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if isinstance(value, dict):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return None


def _holds_tensors(value: Any, depth: int = _DEPTH) -> bool:
    if isinstance(value, Tensor):
        return True
    return bool(depth) and any(_holds_tensors(item, depth - 1) for item in (_items(value) or {}).values())
