"""Building a model from JSON values, for the check at `fit` and for prediction."""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import torch
from torch import nn

from darkit.engine.description.parts import build_parts, parameters_of
from darkit.engine.description.typed import restore
from darkit.errors import ModelError
from darkit.runs.configs import NAMESPACES, plain

WITH_CLASS = ("dataclass", "transformers", "pydantic", "object")
"""The kinds of config whose class is recorded with its values."""


def build_from(
    model_class: type[nn.Module], kind: str, config_class: Any, values: Mapping[str, Any], noted: Mapping[str, str]
) -> nn.Module:
    """Build a model with fresh weights.

    The arguments are those that `darkit.engine.description.describe.ModelDescription` records; ``values`` is the
    content of ``config.json``, and ``noted`` the types that JSON lacks.

    Raises:
        ModelError: The config's class is not allowed.
    """
    if kind == "parts":
        return build_parts(values)
    if kind == "arguments":
        return model_class(**restore(dict(values), noted))
    config = build_config(kind, config_class, values, model_class, noted)
    if config_parameter(model_class) == "config":
        return model_class(config=config)
    return model_class(config)


def build_config(
    kind: str,
    cls: Any,
    values: Mapping[str, Any],
    model_class: type[nn.Module],
    noted: Mapping[str, str] = types.MappingProxyType({}),
) -> Any:
    """Build a model's config.

    Only these classes are used, for the kinds `WITH_CLASS`: dataclasses, pydantic's ``BaseModel``, transformers'
    ``PretrainedConfig``, namespaces, and plain classes of the model's own package. For the last, attributes are set
    without calling the constructor. Further arguments are as in `build_from`.

    Raises:
        ModelError: The kind is unknown, or the class is not of that kind.
    """
    if kind == "transformers" and not is_config_class(kind, cls, model_class):
        kind = "object"  # another class with to_dict and from_dict
    if kind in WITH_CLASS and not is_config_class(kind, cls, model_class):
        raise ModelError(
            f"{getattr(cls, '__module__', '?')}.{getattr(cls, '__qualname__', cls)} is not allowed as a config of kind "
            f"{kind!r}: only dataclasses, pydantic's BaseModel, transformers' PretrainedConfig, namespaces and plain "
            "classes of the model's own package are"
        )
    values = restore(dict(values), noted)
    if kind == "dict":
        return values
    if kind == "omegaconf":
        return _build_omegaconf(values)
    if kind == "dataclass":
        return _build_dataclass(cls, values)
    if kind == "transformers":
        return cls.from_dict(values)
    if kind == "pydantic":
        return _build_pydantic(cls, values)
    if kind != "object":
        raise ModelError(f"run.json has an unknown kind of config, {kind!r}")
    config = cls() if cls in NAMESPACES else object.__new__(cls)
    _set_changed(config, values)
    return config


def is_config_class(kind: str, cls: Any, model_class: type[nn.Module]) -> bool:
    """Return whether a class is allowed as a config of this kind, without calling it."""
    if not isinstance(cls, type):
        return False
    if kind == "dataclass":
        return dataclasses.is_dataclass(cls)
    if kind == "transformers":
        return _has_base(cls, "transformers", ("PreTrainedConfig", "PretrainedConfig"))
    if kind == "pydantic":
        return _has_base(cls, "pydantic", ("BaseModel",))
    return cls in NAMESPACES or _is_plain_class(cls, model_class)


def config_parameter(model_class: type[nn.Module]) -> str | None:
    """Return the name of the constructor's config parameter: ``config``, or else the first one."""
    parameters = parameters_of(model_class)
    return "config" if "config" in parameters else next(iter(parameters), None)


def _has_base(cls: type, package: str, names: tuple[str, ...]) -> bool:
    """Return whether one of a package's classes is a base; does not import the package."""
    module = sys.modules.get(package)
    return any(isinstance(base := getattr(module, name, None), type) and issubclass(cls, base) for name in names)


def _is_plain_class(cls: Any, model_class: type[nn.Module]) -> bool:
    """Return whether a class and its bases are of the model's package, without ``__new__`` and ``__del__``."""
    if not isinstance(cls, type) or not all(
        base is object or _package(base) == _package(model_class) for base in cls.__mro__
    ):
        return False
    return (
        not hasattr(cls, "__del__")
        and "__new__" not in {name for base in cls.__mro__[:-1] for name in vars(base)}
        and not issubclass(cls, nn.Module)
    )


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _build_omegaconf(values: Any) -> Any:
    from omegaconf import OmegaConf

    def look(value: Any) -> None:
        if isinstance(value, str) and "${" in value:
            raise ModelError("config.json has an unresolved interpolation (${...})")
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            look(item)

    look(values)
    return OmegaConf.create(values)


def _build_pydantic(cls: Any, values: Mapping[str, Any]) -> Any:
    """Build a pydantic model from field names or aliases."""
    try:
        return cls.model_validate(values, by_name=True, by_alias=True)
    except TypeError:  # before pydantic 2.11
        return cls(**values)


def _build_dataclass(cls: Any, values: Mapping[str, Any]) -> Any:
    """Build a dataclass from JSON with the types of its annotations; set further attributes."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # imports for type checkers only
        hints = {}
    fields = {field.name: field.init for field in dataclasses.fields(cls)}
    config = cls(**{name: _typed(hints.get(name), values[name]) for name in fields if fields[name] and name in values})
    _set_changed(config, {name: value for name, value in values.items() if name not in fields})
    return config


def _set_changed(config: Any, values: Mapping[str, Any]) -> None:
    """Set the attributes whose values differ."""
    for name, value in values.items():
        if not hasattr(config, name) or plain(getattr(config, name)) != plain(value):
            object.__setattr__(config, name, value)  # also works for frozen dataclasses


def _typed(hint: Any, value: Any) -> Any:
    """Convert a JSON value to the annotated type, if JSON lacks that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        candidates = (_typed(argument, value) for argument in arguments)
        return next((candidate for candidate in candidates if candidate is not value), value)
    if isinstance(value, Mapping):
        if dataclasses.is_dataclass(hint):
            return _build_dataclass(hint, value)
        if origin is dict:
            return {_typed_key(arguments[0], key): _typed(arguments[1], item) for key, item in value.items()}
    if isinstance(value, list | tuple) and (origin or hint) in (list, tuple, set, frozenset):
        if origin is tuple and Ellipsis not in arguments:
            return tuple(_typed(argument, item) for argument, item in zip(arguments, value, strict=True))
        return (origin or hint)(_typed(arguments[0] if arguments else None, item) for item in value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum | PurePath):
        return hint(value)
    if hint is torch.dtype and isinstance(value, str):
        return getattr(torch, value.removeprefix("torch."))
    return value


def _typed_key(hint: Any, key: Any) -> Any:
    return hint(key) if hint in (int, float) and isinstance(key, str) else key
