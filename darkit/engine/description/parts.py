"""Modules of torch layers as data: layers, their arguments and containers."""

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
_IMPLIED = ("device", "dtype")  # arguments given by the weights
_SIMPLE = (bool, int, float, str, tuple, list, type(None))


def is_of_torch(cls: type) -> bool:
    """Return whether a class is a module of ``torch.nn`` under its own name."""
    return vars(nn).get(cls.__name__) is cls and issubclass(cls, nn.Module)


def describe_parts(module: nn.Module, depth: int = 0) -> dict[str, Any] | None:
    """Describe a module as layers of ``torch.nn``.

    Arguments are guessed from attributes; callers must verify the result.

    Returns:
        ``{"layer": "Linear", "arguments": {...}, "types": {...}}`` of a layer, ``{"layer": "Sequential", "parts":
        {name: ...}}`` of a container; None if it has other modules.
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
    shared = len(list(module.children())) != len(module._modules)  # named_children skips repeated modules
    return None if shared or None in parts.values() else {"layer": name, "parts": parts}


def build_parts(node: Any, depth: int = 0) -> nn.Module:
    """Build a module from a description by `describe_parts`, with classes of ``torch.nn`` only.

    Raises:
        ModelError: The description is invalid.
    """
    name = node.get("layer") if isinstance(node, Mapping) else None
    cls = vars(nn).get(name) if isinstance(name, str) else None
    if not (isinstance(cls, type) and is_of_torch(cls)) or depth > _DEEPEST:
        raise ModelError(f"config.json has the layer {str(name)[:60]!r}, which torch.nn lacks")
    if cls not in _CONTAINERS:
        arguments, noted = node.get("arguments", {}), node.get("types", {})
        layer: nn.Module = cls(**restore(dict(arguments), noted))
        return layer
    container: Any = cls()
    for key, part in node.get("parts", {}).items():
        container.add_module(key, build_parts(part, depth + 1))
    return container  # type: ignore[no-any-return]


def _arguments(layer: nn.Module) -> dict[str, Any] | None:
    """Return a layer's arguments from its attributes, or None if a required one is missing."""
    arguments: dict[str, Any] = {}
    for name, parameter in _parameters(type(layer)).items():
        value = getattr(layer, name, Parameter.empty)
        if name in _IMPLIED or name.startswith("_"):
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
    """Return the parameters of a layer's constructor; for LSTM and GRU those of the base without the mode."""
    named = constructor_parameters(nn.RNNBase if issubclass(cls, nn.RNNBase) else cls)
    return {name: parameter for name, parameter in named.items() if name != "mode"}


def parameters_of(cls: type) -> Mapping[str, Parameter]:
    """Return the parameters of a constructor; none of a class whose constructor is made in C."""
    try:
        return signature(cls).parameters
    except (TypeError, ValueError):
        return {}


def constructor_parameters(cls: type) -> dict[str, Parameter]:
    """Return the named parameters of a constructor."""
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return {name: one for name, one in parameters_of(cls).items() if one.kind not in variable}
