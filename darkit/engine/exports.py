"""What a model, a config and a tokenizer look like in a run directory, so that they can be found and built again."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from darkit.engine.checkpoint import class_path
from darkit.errors import ConfigError, ReproductionWarning
from darkit.runs import files
from darkit.runs.configs import plain, public_values
from darkit.runs.safe import make_folder


@dataclass(frozen=True)
class ModelDescription:
    """How a model can be built again.

    Attributes:
        model_class: Where its class is imported from.
        kind: What its config is: ``dataclass``, ``transformers``, ``pydantic``, ``dict``, ``object``, ``arguments`` (of
            the constructor) or ``none``.
        config_class: Where the config's class is imported from, or empty.
        values: The config's values.
    """

    model_class: str
    kind: str
    config_class: str
    values: dict[str, Any]

    def as_dict(self) -> dict[str, str]:
        """Returns what ``run.json`` keeps; the values are in ``config.json``."""
        return {"class": self.model_class, "config_kind": self.kind, "config_class": self.config_class}


def describe_model(model: nn.Module) -> ModelDescription:
    """Finds out what can be had of a model's config."""
    config = getattr(model, "config", None)
    kind: str = "none"
    values: dict[str, Any] | None = {}
    if config is not None and not isinstance(config, type):
        kind, values = _describe_config(config)
    if kind == "none":
        config, values = None, _arguments(model)
        kind = "arguments" if values is not None else "none"
    config_class = class_path(type(config)) if kind in ("dataclass", "transformers", "pydantic", "object") else ""
    return ModelDescription(class_path(type(model)), kind, config_class, values or {})


def write_exports(folder: Path, model: nn.Module, config: Any, tokenizer: Any) -> ModelDescription:
    """Writes ``config.json``, ``trainer_config.json``, ``tokenizer.json`` and ``model.py``.

    A model of which neither a config nor arguments can be had gets ``{}`` and a `ReproductionWarning`.

    Raises:
        ConfigError: The tokenizer is of an unknown kind.
        StorageError: The file system refused.
    """
    description = describe_model(model)
    if description.kind == "none":
        warnings.warn(
            f"No config of {type(model).__name__} could be recorded (give it a .config): predicting by name will need "
            "the model itself, as model=.",
            ReproductionWarning,
            stacklevel=2,
        )
    files.write_json(folder / files.MODEL_CONFIG, description.values)
    if config is not None:
        files.write_json(folder / files.TRAINER_CONFIG, public_values(config))
    if tokenizer is not None:
        _write_tokenizer(folder, tokenizer)
    source = _source(type(model))
    if source:
        files.write_text(folder / files.MODEL_SOURCE, source)
    return description


def _describe_config(config: Any) -> tuple[str, dict[str, Any]]:
    if _is_transformers(config):
        return "transformers", public_values(config.to_dict())
    if dataclasses.is_dataclass(config):
        return "dataclass", public_values(config)
    if callable(getattr(config, "model_dump", None)):
        return "pydantic", public_values(config.model_dump())
    if isinstance(config, Mapping):
        return "dict", public_values(config)
    if hasattr(config, "__dict__") and not isinstance(config, nn.Module) and not callable(config):
        return "object", public_values(config)
    return "none", {}


def _is_transformers(config: Any) -> bool:
    """Says whether a config is one of transformers' (dataclasses too) or goes to a dict and back as they do."""
    if any(part.__module__.partition(".")[0] == "transformers" for part in type(config).__mro__):
        return True
    both = callable(getattr(config, "to_dict", None)) and callable(getattr(config, "from_dict", None))
    return both and not dataclasses.is_dataclass(config)


def _arguments(model: nn.Module) -> dict[str, Any] | None:
    """Returns the constructor's arguments, as ``model.hparams`` or as attributes of the same names have them.

    They count only if a model built of them has the same parameters, so a guess is never exported as a fact.
    """
    recorded = getattr(model, "hparams", None)
    if isinstance(recorded, Mapping) and recorded:
        arguments: dict[str, Any] | None = dict(recorded)
    else:
        arguments = _arguments_from_attributes(model)
    if arguments is None or plain(arguments) != arguments:
        return None
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            twin = type(model)(**arguments)
    except Exception:  # whatever a stranger's constructor says, the guess was wrong: the caller warns
        return None
    shapes, wanted = ({key: value.shape for key, value in part.state_dict().items()} for part in (twin, model))
    return arguments if shapes == wanted else None


def _arguments_from_attributes(model: nn.Module) -> dict[str, Any] | None:
    arguments = {}
    for name, parameter in inspect.signature(type(model)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
        value = getattr(model, name, parameter.empty)
        if isinstance(value, bool | int | float | str | list | dict | None):
            arguments[name] = value
        elif parameter.default is parameter.empty:
            return None
    return arguments


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Returns a short digest of what a tokenizer makes of a text, or None where there is none in a ``tokenizer.json``.

    Padding and truncation do not count: they are the caller's.

    Args:
        tokenizer: A tokenizer as `write_exports` takes it, or the path of a ``tokenizer.json`` that may not be there.

    Raises:
        ConfigError: The file is no tokenizer.
    """
    if isinstance(tokenizer, str | Path):
        tokenizer = Tokenizer.from_str(_tokenizer_text(Path(tokenizer))) if Path(tokenizer).is_file() else None
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not callable(getattr(backend, "to_str", None)):
        return None
    content = json.loads(backend.to_str())
    counting = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(counting, sort_keys=True).encode()).hexdigest()[:12]


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    if callable(getattr(tokenizer, "save_pretrained", None)):  # transformers
        tokenizer.save_pretrained(make_folder(folder / files.TOKENIZER_FOLDER))
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            files.write_text(folder / files.TOKENIZER, backend.to_str(pretty=True) + "\n")
    elif callable(getattr(tokenizer, "to_str", None)):  # tokenizers
        files.write_text(folder / files.TOKENIZER, tokenizer.to_str(pretty=True) + "\n")
    elif isinstance(tokenizer, str | Path) and Path(tokenizer).is_file():
        text = _tokenizer_text(Path(tokenizer))
        files.write_text(folder / files.TOKENIZER, text)
    else:
        raise ConfigError(
            "tokenizer must be a tokenizers.Tokenizer, a transformers tokenizer or the path of a tokenizer.json, not "
            f"{type(tokenizer).__name__}."
        )


def _tokenizer_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises plain Exception
        raise ConfigError(f"The file {path} is no tokenizer: {error}") from error
    return text


def _source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # made in an interpreter or in C: there is none
        return ""
