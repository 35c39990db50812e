"""Modules made of torch's own layers, as data: which layers, with which arguments, inside of which containers."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from torch import Tensor, nn

from darkit.engine.description.typed import restore, types_of
from darkit.errors import ModelError
from darkit.runs.configs import plain

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_DEEPEST = 64
_ELSEWHERE = ("device", "dtype")  # arguments that the weights tell
_SIMPLE = (bool, int, float, str, tuple, list, type(None))


def is_of_torch(cls: type) -> bool:
    """Says whether a class is one of those that ``torch.nn`` has under their own names."""
    return vars(nn).get(cls.__name__) is cls and issubclass(cls, nn.Module)


def describe_parts(module: nn.Module, depth: int = 0) -> dict[str, Any] | None:
    """Describes a module as layers of ``torch.nn``.

    A layer's arguments are read off its attributes, which is a guess: whoever records it has to prove it.

    Returns:
        ``{"layer": "Linear", "arguments": {...}, "types": {...}}`` of a layer, ``{"layer": "Sequential", "parts":
        {name: ...}}`` of a container; None where something else is in it.
    """
    if not is_of_torch(type(module)) or depth > _DEEPEST:
        return None
    name = type(module).__name__
    if not isinstance(module, _CONTAINERS):
        arguments = _arguments(module)
        if arguments is None:
            return None
        noted = types_of(arguments)
        return {"layer": name, "arguments": plain(arguments)} | ({"types": noted} if noted else {})
    parts = {key: describe_parts(part, depth + 1) for key, part in module.named_children()}
    shared = len(list(module.children())) != len(module._modules)  # named_children leaves out the second of one
    return None if shared or None in parts.values() else {"layer": name, "parts": parts}


def build_parts(node: Any, depth: int = 0) -> nn.Module:
    """Builds what `describe_parts` described; only classes that ``torch.nn`` has are called.

    Raises:
        ModelError: It is no such description.
    """
    name = node.get("layer") if isinstance(node, Mapping) else None
    cls = vars(nn).get(name) if isinstance(name, str) else None
    if not (isinstance(cls, type) and is_of_torch(cls)) or depth > _DEEPEST:
        raise ModelError(f"config.json names the layer {str(name)[:60]!r}, which torch.nn does not have")
    if cls not in _CONTAINERS:
        arguments, noted = node.get("arguments", {}), node.get("types", {})
        layer: nn.Module = cls(**restore(dict(arguments), noted))
        return layer
    container: Any = cls()
    for key, part in node.get("parts", {}).items():
        container.add_module(key, build_parts(part, depth + 1))
    return container  # type: ignore[no-any-return]


def _arguments(layer: nn.Module) -> dict[str, Any] | None:
    """Reads the arguments of a layer off its attributes, or returns None where one that is needed is not there."""
    arguments: dict[str, Any] = {}
    for name, parameter in _parameters(type(layer)).items():
        value = getattr(layer, name, Parameter.empty)
        if name in _ELSEWHERE or name.startswith("_"):
            continue
        if isinstance(value, Tensor) or (value is None and isinstance(parameter.default, bool)):
            value = value is not None  # such as a bias
        if isinstance(value, _SIMPLE):
            if parameter.default is Parameter.empty or value != parameter.default:
                arguments[name] = value
        elif parameter.default is Parameter.empty:
            return None
    return arguments


def _parameters(cls: type) -> dict[str, Parameter]:
    """Returns what a layer's constructor takes; LSTM and GRU take what their base does, but for the mode."""
    if issubclass(cls, nn.RNNBase):
        cls = nn.RNNBase
    named = signature(cls).parameters
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return {name: one for name, one in named.items() if one.kind not in variable and name != "mode"}
