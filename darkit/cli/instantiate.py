"""Model, data and loss from what their configs name with ``_target_``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import torch.nn.functional as F
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from darkit.data.sources.choice import DataChoice
from darkit.engine.description.parts import constructor_parameters
from darkit.engine.device import seed_generators
from darkit.engine.steps.loss import finds_own_loss
from darkit.errors import ConfigError, DarkitError, ModelError, nearest
from darkit.runs.moved import present_name

_PLAIN = (bool, int, float, str, type(None))  # defaults that are recorded with what was given
_SPEAK_FOR_THEMSELVES = (ValueError, TypeError, ImportError)


def make_model(settings: Any) -> nn.Module:
    """Make the model; one without a config remembers its arguments.

    Raises:
        ConfigError: The config does not name a class that can be made so.
        ModelError: What it names is no module.
    """
    model = _make(settings, "model")
    if not isinstance(model, nn.Module):
        raise ModelError(f"The model {settings._target_} is a {type(model).__name__}, not a torch.nn.Module.")
    if not hasattr(model, "config") and not hasattr(model, "hparams"):
        values = cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
        given = {name: value for name, value in values.items() if not name.startswith("_")}
        usual = {name: parameter.default for name, parameter in constructor_parameters(type(model)).items()}
        plain = {name: value for name, value in usual.items() if isinstance(value, _PLAIN)}
        model.hparams = {**plain, **given}  # type: ignore[assignment]
    return model


def make_choice(settings: Any) -> DataChoice:
    """Make the data, which may be a `DataChoice` or anything that `darkit.fit` takes. Raises `ConfigError`."""
    data = _make(settings, "data")
    return data if isinstance(data, DataChoice) else DataChoice(data)


def make_loss(settings: Any) -> Callable[..., Any] | None:
    """Make the loss: none, a function of `torch.nn.functional` or another place by name, or a ``_target_``.

    Raises:
        ConfigError: There is no such function, or the config does not name one.
    """
    if settings is None:
        return None
    if not isinstance(settings, str):
        return cast(Callable[..., Any], _make(settings, "loss"))
    module, _, name = settings.rpartition(".")
    try:
        found = getattr(import_module(module or F.__name__), name)
    except Exception as error:  # whatever the import of a stranger's module raises
        raise ConfigError(f"Unknown loss {settings!r}: {_reason(error)}") from error
    return cast(Callable[..., Any], found() if isinstance(found, type) else found)


def make_parts(settings: DictConfig, seed: int) -> tuple[DataChoice, nn.Module, Callable[..., Any] | None]:
    """Make data, model and loss of a composed config, whose data then has its actual settings.

    Raises:
        ConfigError: One of them cannot be made so.
        ModelError: The model is no module.
    """
    OmegaConf.to_container(settings, resolve=True)  # what does not fit is said before the work
    seed_generators(seed)
    choice = make_choice(settings.data)
    for key, value in choice.settings.items():
        OmegaConf.update(settings.data, key, value, force_add=True)
    seed_generators(seed)  # whatever the data drew, the model starts from the same numbers
    model = make_model(settings.model)
    loss = make_loss(settings.loss)
    if loss is None and not finds_own_loss(model):
        loss = choice.loss_for(model)
    return choice, model, loss


def _make(settings: Any, group: str) -> Any:
    """Build what a config's ``_target_`` names; what its constructor refuses is the user's to mend."""
    if not isinstance(settings, DictConfig) or "_target_" not in settings:
        raise ConfigError(f"The config of {group} needs a _target_, such as _target_: package.module.Class.")
    if (target := present_name(str(settings._target_))) != settings._target_:
        settings._target_ = target
    try:
        return instantiate(settings, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, DarkitError):
            raise error.__cause__ from error.__cause__.__cause__
        raise ConfigError(f"The {group} {settings._target_} cannot be created: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ModuleNotFoundError):
        module, _, name = (error.name or "").rpartition(".")
        found = sys.modules.get(module)
        if found is not None and not hasattr(found, "__path__"):  # a module, of which Hydra says: is not a package
            classes = (key for key, value in vars(found).items() if isinstance(value, type))
            return f"Module {module} has no {name!r}. {nearest(name, classes)}"
    if isinstance(error, InstantiationException):
        return str(error).splitlines()[0]
    return str(error) if isinstance(error, _SPEAK_FOR_THEMSELVES) else f"{type(error).__name__}: {error}"
