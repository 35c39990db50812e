"""What is recorded of the settings of a training by Lightning's own loop: only what holds for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import lightning

from darkit.engine.config import TrainerConfig
from darkit.engine.lightning import REFUSALS
from darkit.runs.configs import public_values

_READ = (
    *("max_epochs", "max_steps", "min_epochs", "min_steps", "accumulate_grad_batches", "gradient_clip_val"),
    *("gradient_clip_algorithm", "precision", "log_every_n_steps", "val_check_interval", "check_val_every_n_epoch"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches", "reload_dataloaders_every_n_epochs", "world_size"),
)
"""Attributes of a trainer that say how it trains."""


def settings_of(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the settings of a trainer that somebody else made."""
    settings = {name: getattr(trainer, name, None) for name in _READ}
    return settings | {"device": trainer.strategy.root_device.type, "strategy": type(trainer.strategy).__name__}


def recorded_settings(
    config: TrainerConfig, settings: Mapping[str, Any], without: Collection[str]
) -> Mapping[str, Any]:
    """Return what ``trainer_config.json`` gets.

    Args:
        config: darkit's settings.
        settings: Lightning's settings.
        without: The names of darkit's settings that say nothing about this training.
    """
    own = {key: value for key, value in public_values(config).items() if key not in without}
    return own | {"lightning": {key: _plain(value) for key, value in settings.items()}}


def planned_steps(trainer: lightning.Trainer) -> int | None:
    """Return the step at which a training will end unless something stops it, or None if that cannot be known."""
    if trainer.max_steps > 0 and trainer.max_epochs in (-1, None):
        return trainer.max_steps
    if not trainer.lightning_module.automatic_optimization:  # it steps when it likes
        return None
    if trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
        return None
    try:
        steps = trainer.estimated_stepping_batches
    except REFUSALS:  # the accumulation changes with the epochs
        return None
    return int(steps) if math.isfinite(steps) and steps > 0 else None


def why_stopped(trainer: lightning.Trainer, step: int) -> str:
    """Return why a training ended early, in one sentence."""
    for callback in trainer.early_stopping_callbacks:
        if reason := getattr(callback, "stopping_reason_message", None):
            return f"EarlyStopping stopped the training at step {step}: {reason}"
    return f"A callback or the module stopped the training at step {step}."


def _plain(value: Any) -> Any:
    """Return a setting as it can be recorded."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
