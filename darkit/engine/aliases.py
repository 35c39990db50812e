"""Names that other libraries use for the trainer's settings. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from darkit.errors import ConfigError

ALIASES: Mapping[str, str] = {
    "max_steps": "max_step",
    "max_epochs": "max_epoch",
    "num_epochs": "max_epoch",
    "num_train_epochs": "max_epoch",
    "epochs": "max_epoch",
    "devices": "device_num",
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch_size",
    "per_device_batch_size": "batch_size",
    "dataloader_num_workers": "num_workers",
    "warmup_steps": "warmup_step",
    "num_warmup_steps": "warmup_step",
    "accumulate_grad_batches": "gradient_accumulation_steps",
    "gradient_clip_val": "gradient_clip",
    "max_grad_norm": "gradient_clip",
    "grad_clip": "gradient_clip",
    "eval_steps": "eval_step_interval",
    "save_steps": "save_step_interval",
    "logging_steps": "log_step_interval",
    "log_every_n_steps": "log_step_interval",
    "torch_compile": "compile",
    "early_stopping_patience": "early_stop_patience",
    "load_best_model_at_end": "load_best_at_end",
}
"""Name elsewhere -> field of `TrainerConfig`. Both have the same values with the same meaning."""


def field_of(name: str, known: Collection[str]) -> str:
    """Return the field of a name: the name itself if it is a known field, else the field that it is an alias of."""
    field = ALIASES.get(name, name)
    return field if name not in known and field in known else name


def with_fields(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Replace aliases by their fields.

    Args:
        values: Values by field or alias.
        known: The existing fields; one with an alias's name stays as it is.

    Raises:
        ConfigError: A field is given under two names with different values.
    """
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in values.items():
        field = field_of(name, known)
        if field in found and not _same(found[field], value):
            raise ConfigError(
                f"{name}={value!r} and {names[field]}={found[field]!r} are the same setting ({field}) with different "
                "values. Give one of them."
            )
        found[field], names[field] = value, name
    return found


def refuse_shadows(config: Any, fields: Collection[str]) -> None:
    """Refuse a config with an attribute of an alias's name whose value differs from the field in use.

    Args:
        config: The config; a subclass may have added ``learning_rate``, which the engine does not read.
        fields: The fields that are read.

    Raises:
        ConfigError: Such an attribute exists.
    """
    for alias, field in ALIASES.items():
        value = getattr(config, alias, None)
        if field in fields and alias not in fields and value is not None and not _same(value, getattr(config, field)):
            raise ConfigError(
                f"{type(config).__name__} sets {alias}={value!r}, but training uses "
                f"{field}={getattr(config, field)!r}. Rename {alias} to {field}."
            )


def plain_number(value: Any) -> Any:
    """Convert a scalar of NumPy or torch to a Python number; return anything else unchanged."""
    if not isinstance(value, bool | int | float | str) and getattr(value, "ndim", None) == 0:
        item = getattr(value, "item", None)
        return item() if callable(item) else value
    return float(value) if isinstance(value, float) and type(value) is not float else value


def _same(one: Any, other: Any) -> bool:
    one, other = plain_number(one), plain_number(other)
    return (type(one) is type(other) and bool(one == other)) or (one == other) is True
