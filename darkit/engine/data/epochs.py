"""Conversion of ``max_epoch`` to steps."""

from __future__ import annotations

from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.log.progress import announce
from darkit.errors import ConfigError


def limit_steps(config: TrainerConfig, feed: Feed) -> None:
    """Limit ``max_step`` to the last full step of ``max_epoch``. The default of ``max_step`` is ignored.

    The feed must have its place among the processes already.

    Raises:
        ConfigError: The length of the data is unknown, or too short for one step.
    """
    if config.max_epoch is None:
        return
    if feed.order is not None and feed.order.total is not None:
        config.max_step = _limited(config, config.max_epoch * feed.order.units)
        return
    try:
        batches = len(feed)
    except TypeError as error:
        raise ConfigError(
            f"max_epoch={config.max_epoch} needs training data of known length; give max_step instead."
        ) from error
    steps = config.max_epoch * batches // config.gradient_accumulation_steps
    if not steps:
        raise ConfigError(
            f"max_epoch={config.max_epoch} has {config.max_epoch * batches} batches, fewer than one step of "
            f"gradient_accumulation_steps={config.gradient_accumulation_steps}."
        )
    config.max_step = _limited(config, steps)


def _limited(config: TrainerConfig, steps: int) -> int:
    """Return the last step, given the steps of ``max_epoch``."""
    if config.max_step in (TrainerConfig.max_step, steps) or steps < config.max_step:
        return steps
    announce(f"The training ends at max_step={config.max_step}; max_epoch={config.max_epoch} is {steps} steps.")
    return config.max_step
