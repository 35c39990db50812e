"""Optimizers and learning-rate schedules of `torch.optim`, by name or as the user made them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from darkit.engine.config import TrainerConfig
from darkit.errors import ConfigError, ModelError, nearest

MakeOptimizer = Callable[[Any], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]


def make_optimizer(model: nn.Module, config: TrainerConfig, given: Optimizer | MakeOptimizer | None) -> Optimizer:
    """Returns the optimizer of a run.

    Args:
        model: Whose trainable parameters are optimized.
        config: Class, learning rate, weight decay and betas, where the class knows them.
        given: The user's optimizer, or a callable of the parameters (such as a class or a `functools.partial`), or
            None for the config's.

    Raises:
        ConfigError: There is no such optimizer, or the callable did not make one.
        ModelError: The model has nothing to train.
    """
    if isinstance(given, Optimizer):
        return given
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(f"The model {type(model).__name__} has no parameter that requires a gradient.")
    if given is None:
        cls = optimizer_class(config.optimizer)
        known = inspect.signature(cls).parameters
        settings = {name: getattr(config, name) for name in ("lr", "weight_decay", "betas") if name in known}
        try:
            return cls(parameters, **settings)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The optimizer {config.optimizer!r} cannot be made for this model: {error}") from error
    made = given(parameters) if callable(given) else given
    if not isinstance(made, Optimizer):
        raise ConfigError(f"optimizer= must be or make a torch optimizer, not {type(made).__name__}.")
    return made


def optimizer_class(name: str) -> type[Optimizer]:
    """Finds a class of `torch.optim` by its name in any case. Raises `ConfigError`."""
    classes = {
        key.lower(): cls
        for key, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
    }
    classes.pop("lbfgs", None)  # it needs a closure, and so several forward passes a step
    if name.lower() not in classes:
        raise ConfigError(f"There is no optimizer {name!r} in torch.optim; {nearest(name.lower(), classes)}.")
    return classes[name.lower()]


def make_scheduler(
    optimizer: Optimizer, config: TrainerConfig, given: LRScheduler | MakeScheduler | None
) -> LRScheduler | None:
    """Returns the schedule of the learning rate, which is stepped once after every step; None for a constant one.

    Raises:
        ConfigError: What was given neither is nor makes a schedule of this optimizer that steps without a metric.
    """
    if given is None:
        if config.scheduler == "constant" and not config.warmup_step:
            return None
        return LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
    made = given if isinstance(given, LRScheduler) or not callable(given) else given(optimizer)
    if not isinstance(made, LRScheduler) or isinstance(made, ReduceLROnPlateau):
        raise ConfigError(f"scheduler= must be or make a torch schedule by steps, not {type(made).__name__}.")
    if made.optimizer is not optimizer:
        raise ConfigError(
            "scheduler= is the schedule of another optimizer than the run's: give that one as optimizer=, or give a "
            "callable of the optimizer."
        )
    return made


def learning_rate_factor(step: int, config: TrainerConfig) -> float:
    """Returns what `lr` is multiplied with for the step after ``step`` completed ones.

    Linear warm-up, then constant, linear decay, or the half cosine of Loshchilov and Hutter, "SGDR" (2017), to 0 at
    ``max_step``.
    """
    if step < config.warmup_step:
        return (step + 1) / (config.warmup_step + 1)
    if config.scheduler == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_step) / max(1, config.max_step - config.warmup_step))
    return 1.0 - progress if config.scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
