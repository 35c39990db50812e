"""A model built again from what its run directory tells."""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import signature
from pathlib import PurePath
from typing import Any

import torch
from torch import nn

from darkit.engine.checkpoint import class_path
from darkit.errors import ModelError
from darkit.runs import Run
from darkit.runs.configs import plain

_ADVICE = "import the module that defines it first, or pass the model itself as model="
_SCRIPT = "__main__."


def build_model(run: Run) -> nn.Module:
    """Builds a run's model with its recorded config, with fresh weights.

    Raises:
        ModelError: Its class cannot be found or is no module, or nothing was recorded that it can be built of.
    """
    facts = run.info.get("model", {})
    cls = find_model_class(str(facts.get("class", "")), run.name)
    kind, values = facts.get("config_kind", "none"), run.config
    if kind == "none":
        raise ModelError(
            f"The run {run.name!r} has no recorded config of {cls.__name__}: pass the model itself as model=."
        )
    try:
        if kind == "arguments":
            return cls(**values)
        return _call_with_config(cls, build_config(kind, str(facts.get("config_class", "")), values, cls, run.name))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{cls.__name__} of run {run.name!r} cannot be built from its config.json ({type(error).__name__}: "
            f"{error}); pass the model itself as model=."
        ) from error


def find_model_class(path: str, run_name: str) -> type[nn.Module]:
    """Finds a model's class among those imported, or imports it from where it was.

    What a script defined is also found under the name of the module that the script was imported as later.

    Raises:
        ModelError: It is nowhere, or it is not a module.
    """
    found: Any = _living(nn.Module, path)
    if found is None and path.startswith(_SCRIPT):
        name = path.removeprefix(_SCRIPT)
        found = next((cls for cls in _subclasses(nn.Module) if cls.__qualname__ == name), None)
    if found is None:
        found = _import(path, run_name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"{path!r}, the recorded class of run {run_name!r}, is not a torch.nn.Module.")
    return found


def build_config(kind: str, path: str, values: Mapping[str, Any], model_class: type[nn.Module], run_name: str) -> Any:
    """Builds a model's config.

    Args:
        kind: What it is; see `darkit.engine.exports.ModelDescription`.
        path: Where its class is imported from.
        values: What ``config.json`` holds.
        model_class: The model's class, in whose module the config's is looked for if a script defined both.
        run_name: The run's name, for the error.

    Raises:
        ModelError: Its class cannot be found.
    """
    if kind == "dict":
        return dict(values)
    cls = _find_config_class(path, model_class, run_name)
    if kind == "dataclass":
        return _build_dataclass(cls, values)
    if kind == "transformers" and hasattr(cls, "from_dict"):
        return cls.from_dict(dict(values))
    if kind in ("pydantic", "transformers"):
        return cls(**values)
    config = cls.__new__(cls)
    _set_changed(config, values)
    return config


def _find_config_class(path: str, model_class: type[nn.Module], run_name: str) -> Any:
    if path.startswith(_SCRIPT):
        beside = getattr(sys.modules.get(model_class.__module__), path.removeprefix(_SCRIPT), None)
        if isinstance(beside, type):
            return beside
    return _living(object, path) or _import(path, run_name)


def _import(path: str, run_name: str) -> Any:
    parts = path.split(".")
    try:
        if path.startswith(_SCRIPT) or len(parts) < 2:
            raise ImportError("it was defined in a script")
        found = _import_module(parts)
        for name in parts[found.__name__.count(".") + 1 :]:
            found = getattr(found, name)
    except Exception as error:  # whatever a stranger's module says when it is imported
        raise ModelError(f"The class {path!r} of run {run_name!r} cannot be found ({error}): {_ADVICE}.") from error
    return found


def _import_module(parts: list[str]) -> Any:
    """Imports the longest beginning of a path that is a module: a class may be inside another class."""
    for length in range(len(parts) - 1, 1, -1):
        name = ".".join(parts[:length])
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and something that it needs is not
    return import_module(parts[0])


def _living(base: type, path: str) -> Any:
    """Returns the class below ``base`` that was defined last under a path, or None."""
    return next((cls for cls in _subclasses(base) if class_path(cls) == path), None)


def _subclasses(base: type) -> Iterator[type]:
    """Goes through all classes below one, those that were defined last first."""
    seen = {base}
    waiting = [base]
    while waiting:
        children: list[type] = type.__subclasses__(waiting.pop())
        new = [child for child in children if child not in seen]
        seen.update(new)
        waiting.extend(new)
        yield from reversed(new)


def _build_dataclass(cls: Any, values: Mapping[str, Any]) -> Any:
    """Builds a dataclass from JSON: nested ones, tuples and the like get their types back; other attributes are set."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # annotated for type checkers only
        hints = {}
    fields = {field.name: field.init for field in dataclasses.fields(cls)}
    config = cls(**{name: _typed(hints.get(name), values[name]) for name in fields if fields[name] and name in values})
    _set_changed(config, {name: value for name, value in values.items() if name not in fields})
    return config


def _set_changed(config: Any, values: Mapping[str, Any]) -> None:
    """Sets the attributes that the class does not have with these values already."""
    for name, value in values.items():
        if not hasattr(config, name) or plain(getattr(config, name)) != value:
            object.__setattr__(config, name, value)  # also where the dataclass is frozen


def _typed(hint: Any, value: Any) -> Any:
    """Gives what JSON holds the type that an annotation tells, where that is one of those JSON has not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        candidates = (_typed(argument, value) for argument in arguments)
        return next((candidate for candidate in candidates if candidate is not value), value)
    if isinstance(value, Mapping):
        if dataclasses.is_dataclass(hint):
            return _build_dataclass(hint, value)
        if origin is dict:
            return {key: _typed(arguments[1], item) for key, item in value.items()}
    if isinstance(value, list) and (origin or hint) in (list, tuple, set, frozenset):
        if origin is tuple and Ellipsis not in arguments:
            return tuple(_typed(argument, item) for argument, item in zip(arguments, value, strict=True))
        return (origin or hint)(_typed(arguments[0] if arguments else None, item) for item in value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum | PurePath):
        return hint(value)
    if hint is torch.dtype and isinstance(value, str):
        return getattr(torch, value.removeprefix("torch."))
    return value


def _call_with_config(cls: type[nn.Module], config: Any) -> nn.Module:
    """Calls a model's class with its config: as ``config`` if the constructor has that name, else first."""
    if "config" in signature(cls).parameters:
        return cls(config=config)
    return cls(config)
