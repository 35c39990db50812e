"""The arguments of a trainer, in every form that DarwinKit's trainers take them."""

from __future__ import annotations

from typing import Any

from darkit.engine.config import TrainerConfig
from darkit.errors import ConfigError


def tokenizer_and_config(args: tuple[Any, ...], tokenizer: Any, config: Any) -> tuple[Any, TrainerConfig]:
    """Return the tokenizer and the config of a trainer's arguments. Raises `ConfigError`."""
    if len(args) > 2:
        raise TypeError(f"Trainer takes (model, config) or (model, tokenizer, config), not {len(args) + 1} arguments.")
    if len(args) == 2:
        tokenizer, config = args
    elif args and config is None:
        config = args[0]
    elif args:
        tokenizer = args[0]
    if not isinstance(config, TrainerConfig):
        raise ConfigError(f"config must be a TrainerConfig, not {type(config).__name__}.")
    return tokenizer, config


def refuse_of_darwinkit(fork: Any, server_prot: Any) -> None:
    """Refuse what DarwinKit's trainers take beside these, and darkit's do not do. Raises `ConfigError`."""
    if fork is not None:
        raise ConfigError(
            f"fork={fork!r} is not possible for a Trainer, which runs no scripts of another model: leave it out. "
            "darkit.fit and darkit train have a fork= that continues a run exactly."
        )
    if server_prot is not None:
        raise ConfigError(
            f"server_prot={server_prot!r} is not possible: enable_server=True takes the dashboard's usual port or a "
            "free one. For another, start darkit start --port before the training."
        )
