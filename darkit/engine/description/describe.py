"""Recording how to rebuild a model, with a check that this gives the same model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from darkit.engine.checkpoints.weights import bare, class_path
from darkit.engine.description.adapters import attach_adapter, describe_adapter, is_adapted, other_adapter
from darkit.engine.description.building import (
    WITH_CLASS,
    build_config,
    build_from,
    config_parameter,
    is_config_class,
)
from darkit.engine.description.likeness import are_alike
from darkit.engine.description.parts import constructor_parameters, describe_parts
from darkit.engine.description.scripts import script_of, sealed
from darkit.engine.description.twin import TooLargeError, build_twin, is_same_function, other_layout
from darkit.engine.description.typed import restore, types_of
from darkit.runs.configs import attributes_of, plain, public_values

_LONGEST = 60  # characters of a value in messages
_OF_LIGHTNINGS_CLI = ("_class_path", "_instantiator")  # added to the hparams of modules that LightningCLI makes
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


@dataclass(frozen=True)
class ModelDescription:
    """How to rebuild a model.

    Attributes:
        model_class: The import path of its class; of the base model's, if it has an adapter of peft.
        kind: The kind of its config: ``dataclass``, ``transformers``, ``pydantic``, ``omegaconf``, ``dict``,
            ``object``, ``arguments`` (of the constructor), ``parts`` (layers of torch) or ``none``.
        config_class: The import path of the config's class, or empty.
        values: The config's values.
        types: The types that JSON lacks; see `darkit.engine.description.typed`.
        script: The script that defines the class, or empty; see `darkit.engine.description.scripts`.
        adapter: The adapter of peft, or empty; see `darkit.engine.description.adapters`.
        generation: The generation config of a transformers model, or empty.
        reason: Why nothing could be recorded, if the kind is ``none``.
        apart: Whether the values belong into ``run.json``, because ``config.json`` has the config of a whole loop.
    """

    model_class: str
    kind: str
    config_class: str
    values: dict[str, Any]
    types: dict[str, str] = field(default_factory=dict)
    script: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    adapter: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    apart: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of ``run.json``; the values are in ``config.json`` unless they are `apart`."""
        facts: dict[str, Any] = {
            "class": self.model_class,
            "config_kind": self.kind,
            "config_class": self.config_class,
        }
        parts = {
            "types": self.types,
            "script": sealed(self.script),
            "adapter": self.adapter,
            "generation": self.generation,
        }
        own = {"config": self.values} if self.apart and self.kind != "none" else {}
        return facts | own | {key: part for key, part in parts.items() if part}


@dataclass(frozen=True)
class _Candidate:
    """A config or arguments that may rebuild a model.

    Attributes:
        kind: See `ModelDescription`.
        config: The config, or the arguments.
        values: Its unconverted values.
        recorded: Whether all values are known rather than guessed.
    """

    kind: str
    config: Any
    values: Mapping[Any, Any]
    recorded: bool


def describe_model(model: nn.Module, sample: Callable[[], Any] | None = None) -> ModelDescription:
    """Find out how to rebuild a model.

    A model's own config is accepted if its JSON form builds a model of the same layout. Guesses (constructor arguments
    from attributes or defaults, and arguments of torch layers) and configs that JSON changes are accepted only if the
    rebuilt model is the same function; see `darkit.engine.description.twin`.

    The model and the generators stay unchanged. ``sample`` returns a small batch to compare outputs, or None.
    """
    model = bare(model)
    if is_adapted(model):
        return _describe_adapted(model)
    cls = type(model)
    path, script, reason = class_path(cls), script_of(cls), ""
    for candidate in _candidates(model):
        values = public_values(candidate.values)
        noted = {} if candidate.kind in ("transformers", "parts") else types_of(candidate.values)
        problem = _problem(model, candidate, values, noted, sample)
        if not problem:
            config_class = class_path(type(candidate.config)) if candidate.kind in WITH_CLASS else ""
            generation = _generation(model)
            return ModelDescription(path, candidate.kind, config_class, values, noted, script, generation=generation)
        reason = reason or problem
    return ModelDescription(path, "none", "", {}, {}, script, reason or _advice(model))


def _advice(model: nn.Module) -> str:
    if callable(getattr(model, "save_hyperparameters", None)):
        return "call self.save_hyperparameters() in its constructor"
    return "give it a .config"


def _describe_adapted(model: Any) -> ModelDescription:
    """Describe a model of peft by its base model, whose config must be its only parameter, and its adapter."""
    base = model.get_base_model()
    cls, path, reason = type(base), class_path(type(base)), "its base model has no config that builds it"
    config, kind = _own_config(base)
    if kind and set(constructor_parameters(cls)) <= {config_parameter(cls)}:  # it takes nothing else
        candidate = _Candidate(kind, config, _values_of(kind, config), True)
        values = public_values(candidate.values)
        noted = {} if kind == "transformers" else types_of(candidate.values)
        read = json.loads(json.dumps(values))
        try:
            adapter = json.loads(json.dumps(describe_adapter(model)))
            changed = _changed(candidate, read, noted, cls)
            build = lambda: attach_adapter(build_from(cls, kind, type(config), read, noted), adapter)  # noqa: E731
            twin, _ = build_twin(build, model, whole=False)
            other = other_layout(model, twin) or other_adapter(model, twin)
            reason = (
                f"JSON changes {changed}" if changed else f"a model built from its record has a different {other!r}"
            )
            if not changed and not other:
                config_class = class_path(type(config)) if kind in WITH_CLASS else ""
                generation = _generation(base)
                return ModelDescription(
                    path, kind, config_class, values, noted, script_of(cls), adapter=adapter, generation=generation
                )
        except TooLargeError:
            reason = "the model is too large to be built twice for a comparison"
        except Exception as error:  # a constructor may raise anything
            reason = f"no model can be built from its record: {type(error).__name__}: {error}".rstrip(".")
    return ModelDescription(class_path(type(model)), "none", "", {}, {}, script_of(type(model)), reason)


def _generation(model: nn.Module) -> dict[str, Any]:
    """Return the settings of a transformers model's generation config that are not the defaults."""
    settings = getattr(_read(model, "generation_config"), "to_diff_dict", None)
    return dict(plain(settings())) if callable(settings) else {}


def config_values(model: nn.Module) -> Mapping[Any, Any]:
    """Return the values of a model's own config, even if it cannot rebuild the model."""
    config, kind = _own_config(bare(model))
    return _values_of(kind, config) if kind else {}


def _own_config(model: nn.Module) -> tuple[Any, str]:
    """Return a model's config and its kind, which is empty for no or an unknown config.

    Without ``config`` it is the attribute named like the constructor's config parameter, unless that is a plain value.
    """
    config, name = _read(model, "config"), config_parameter(type(model))
    if config is None and name is not None:
        config = _read(model, name)
        config = None if isinstance(config, (*_PLAIN, Tensor, nn.Module)) else config
    return config, "" if config is None or isinstance(config, type) else _kind_of(config, type(model))


def _candidates(model: nn.Module) -> Iterator[_Candidate]:
    (config, kind), cls = _own_config(model), type(model)
    if kind:
        takes_only_config = set(constructor_parameters(cls)) <= {config_parameter(cls)}
        yield _Candidate(kind, config, _values_of(kind, config), takes_only_config)
    parts = describe_parts(model)
    if parts is not None:
        yield _Candidate("parts", parts, parts, False)
        return
    recorded = _read(model, "hparams")
    if isinstance(recorded, Mapping) and (recorded or "hparams" in vars(model)):
        recorded = {key: value for key, value in recorded.items() if key not in _OF_LIGHTNINGS_CLI}
        whole = set(constructor_parameters(cls)) <= set(recorded)
        yield _Candidate("arguments", recorded, recorded, whole)
    arguments = _arguments_from_attributes(model)
    if arguments is not None:
        yield _Candidate("arguments", arguments, arguments, False)
    if isinstance(config, Mapping) and set(config) <= set(constructor_parameters(cls)):
        yield _Candidate("arguments", dict(config), dict(config), False)


def _kind_of(config: Any, cls: type[nn.Module]) -> str:
    own = type(config)
    for kind in ("transformers", "dataclass", "pydantic"):
        if is_config_class(kind, own, cls):
            return kind
    if own.__module__.partition(".")[0] == "omegaconf":
        return "omegaconf" if isinstance(config, Mapping) else ""
    if isinstance(config, Mapping):
        return "dict"
    return "object" if is_config_class("object", own, cls) else ""


def _values_of(kind: str, config: Any) -> Mapping[Any, Any]:
    if kind == "transformers":
        return dict(config.to_dict())
    if kind == "pydantic":
        return dict(config.model_dump())
    if kind == "omegaconf":
        omegaconf = sys.modules["omegaconf"]
        return dict(omegaconf.OmegaConf.to_container(config, resolve=True))
    return attributes_of(config)


def _read(model: nn.Module, name: str, default: Any = None) -> Any:
    """Return an attribute; remove attributes that its property adds, as Lightning's hparams does."""
    before = set(vars(model))
    value = getattr(model, name, default)
    for added in set(vars(model)) - before:
        del model.__dict__[added]
    return value


def _arguments_from_attributes(model: nn.Module) -> dict[str, Any] | None:
    arguments = {}
    parameters = constructor_parameters(type(model))
    for name, parameter in parameters.items():
        value = _read(model, name, parameter.empty)
        if isinstance(value, _PLAIN) or (hasattr(value, "dtype") and getattr(value, "ndim", None) == 0):
            arguments[name] = value
        elif parameter.default is parameter.empty:
            return None
    return arguments


def _problem(
    model: nn.Module,
    candidate: _Candidate,
    values: dict[str, Any],
    noted: dict[str, str],
    sample: Callable[[], Any] | None,
) -> str:
    """Return why a candidate is rejected, or an empty string."""
    kind, cls, config_class = candidate.kind, type(model), type(candidate.config)
    read = json.loads(json.dumps(values))
    try:
        changed = "" if kind == "parts" else _changed(candidate, read, noted, cls)
        certain = candidate.recorded and not changed
        build = lambda: build_from(cls, kind, config_class, read, noted)  # noqa: E731 - called once, or twice
        twin, shared = build_twin(build, model, whole=False)
        other = other_layout(model, twin)
        if other:
            return f"a model built from its {_called(kind)} has a different {other!r}"
        if certain:
            return ""
        if shared:  # both models would share the change
            return f"its constructor changes its class, in {shared!r}"
        if are_alike(model, twin):
            return ""
        twin, _ = build_twin(build, model, whole=True)
        if is_same_function(model, twin, sample):
            return ""
    except TooLargeError:
        if candidate.recorded and not changed:
            return ""
        return "the model is too large to be built twice for a comparison of outputs"
    except Exception as error:  # a constructor may raise anything
        return f"no model can be built from its {_called(kind)}: {type(error).__name__}: {error}".rstrip(".")
    if changed:
        return f"JSON changes {changed}"
    if kind == "parts":
        return "a model built from the same layers gives a different output"
    if candidate.recorded or kind != "arguments":
        return f"its constructor has other parameters than the {_called(kind)}"
    known = ", ".join(f"{name}={_short(value)}" for name, value in values.items()) or "no arguments"
    return f"a model built with {known} may give a different output: store every argument under its own name"


def _changed(candidate: _Candidate, read: Any, noted: Mapping[str, str], cls: type[nn.Module]) -> str:
    """Return the first value that JSON changes, or an empty string."""
    if candidate.kind == "arguments":
        after: Any = restore(read, noted)
        before: Any = candidate.values
    else:
        config = build_config(candidate.kind, type(candidate.config), read, cls, noted)
        before, after = candidate.values, _values_of(candidate.kind, config)
        if type(config) is not type(candidate.config):
            return f"the {type(candidate.config).__name__} that is its config"
    for name in before:
        if name not in after or not are_alike(before[name], after[name]):
            return f"{name!r} ({_short(before[name])})"
    return ""


def _called(kind: str) -> str:
    return {"arguments": "arguments", "parts": "layers"}.get(kind, "config")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
