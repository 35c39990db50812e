"""A model built again from what its run directory tells."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from torch import nn

from darkit.engine.checkpoint import class_path
from darkit.errors import ModelError
from darkit.runs import Run

_ADVICE = "import the module that defines it first, or pass the model itself as model="


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
        return _call_with_config(cls, _build_config(kind, str(facts.get("config_class", "")), values, run.name))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{cls.__name__} of run {run.name!r} cannot be built from its config.json ({type(error).__name__}: {error}); "
            "pass the model itself as model=."
        ) from error


def find_model_class(path: str, run_name: str) -> type[nn.Module]:
    """Finds a model's class among those imported, or imports it from where it was. Raises `ModelError`."""
    imported = [cls for cls in _subclasses(nn.Module) if class_path(cls) == path]
    if not imported and path.startswith("__main__."):
        name = path.removeprefix("__main__.")
        imported = [cls for cls in _subclasses(nn.Module) if cls.__qualname__ == name]
    found = imported[-1] if imported else _import(path, run_name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"{path!r}, the recorded class of run {run_name!r}, is not a torch.nn.Module.")
    return found


def _import(path: str, run_name: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        if not module or module == "__main__":
            raise ImportError("it was defined in a script")
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"The class {path!r} of run {run_name!r} cannot be found ({error}): {_ADVICE}.") from error


def _subclasses(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def _build_config(kind: str, path: str, values: Mapping[str, Any], run_name: str) -> Any:
    if kind == "dict":
        return dict(values)
    name = path.rpartition(".")[2]
    in_main = getattr(sys.modules.get("__main__"), name, None) if path.startswith("__main__.") else None
    cls = in_main or _import(path, run_name)
    if kind == "transformers":
        return cls.from_dict(dict(values))
    if kind == "pydantic":
        return cls(**values)
    if kind == "dataclass":
        return _build_dataclass(cls, values)
    config = object.__new__(cls)
    config.__dict__.update(values)
    return config


def _build_dataclass(cls: Any, values: Mapping[str, Any]) -> Any:
    """Builds a dataclass from JSON: nested ones and tuples get their types back; other attributes are set after."""
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    arguments = {name: _typed(hints.get(name), values[name]) for name in names if name in values}
    return cls(**arguments)


def _typed(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build_dataclass(hint, value)
    if (typing.get_origin(hint) or hint) is tuple and isinstance(value, list):
        return tuple(value)
    return value


def _call_with_config(cls: type[nn.Module], config: Any) -> nn.Module:
    """Calls a model's class with its config: as ``config`` if the constructor has that name, else first."""
    if "config" in signature(cls).parameters:
        return cls(config=config)
    return cls(config)
