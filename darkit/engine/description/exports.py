"""Writing model config, trainer config and tokenizer to a run directory."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from darkit.engine.checkpoints.weights import bare
from darkit.engine.description.describe import ModelDescription, describe_model
from darkit.errors import ConfigError, ReproductionWarning
from darkit.runs import files
from darkit.runs.configs import public_values
from darkit.runs.safe import make_folder


def write_exports(
    folder: Path, model: nn.Module, config: Any, tokenizer: Any, description: ModelDescription | None = None
) -> ModelDescription:
    """Write ``config.json``, ``trainer_config.json``, ``tokenizer.json`` and ``model.py``.

    For a model that cannot be rebuilt, ``config.json`` is ``{}``, with a `ReproductionWarning`.

    Args:
        folder: The run directory.
        model: The model.
        config: The trainer's config, or None.
        tokenizer: The tokenizer, or None.
        description: How to rebuild the model; by default from `describe_model`.

    Raises:
        ConfigError: The tokenizer is of an unknown kind.
        StorageError: The file system failed.
    """
    model = bare(model)
    description = description or describe_model(model)
    if description.kind == "none":
        warnings.warn(
            f"No config of {type(model).__name__} could be recorded ({description.reason}): prediction by name needs "
            "model=, the model itself.",
            ReproductionWarning,
            stacklevel=2,
        )
    files.write_json(folder / files.MODEL_CONFIG, description.values)
    if config is not None:
        files.write_json(folder / files.TRAINER_CONFIG, public_values(config))
    if tokenizer is not None:
        write_tokenizer(folder, tokenizer)
    write_source(folder, model)
    return description


def write_source(folder: Path, model: nn.Module) -> None:
    """Write ``model.py``, if the source of the model's class can be found."""
    source = _source(type(bare(model)))
    if source:
        files.write_text(folder / files.MODEL_SOURCE, source)


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Return a short digest of a tokenizer, without padding and truncation; None without a ``tokenizer.json`` form.

    Args:
        tokenizer: As for `write_exports`, or the path of a ``tokenizer.json`` that may be missing.

    Raises:
        ConfigError: The file is not a valid tokenizer file.
    """
    if isinstance(tokenizer, str | Path):
        tokenizer = Tokenizer.from_str(_tokenizer_text(Path(tokenizer))) if Path(tokenizer).is_file() else None
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not callable(getattr(backend, "to_str", None)):
        return None
    content = json.loads(backend.to_str())
    counting = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(counting, sort_keys=True).encode()).hexdigest()[:12]


def write_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Write ``tokenizer.json`` or the folder ``tokenizer``. Raises `ConfigError` for a tokenizer of an unknown kind."""
    if callable(getattr(tokenizer, "save_pretrained", None)):  # transformers
        tokenizer.save_pretrained(make_folder(folder / files.TOKENIZER_FOLDER))
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            files.write_text(folder / files.TOKENIZER, backend.to_str(pretty=True) + "\n")
    elif callable(getattr(tokenizer, "to_str", None)):  # tokenizers
        files.write_text(folder / files.TOKENIZER, tokenizer.to_str(pretty=True) + "\n")
    elif isinstance(tokenizer, str | Path) and Path(tokenizer).is_file():
        files.write_text(folder / files.TOKENIZER, _tokenizer_text(Path(tokenizer)))
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
        raise ConfigError(f"{path} is not a valid tokenizer file: {error}") from error
    return text


def _source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # defined in an interpreter or in C
        return ""
