"""The checkpoint of a loop that somebody else wrote: whatever the loop names, and the generators."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from darkit.core.loop_state import has_state, load_state, state_of
from darkit.engine.checkpoints.savable import refuse_unreadable
from darkit.engine.checkpoints.weights import bare, class_path, load_weights
from darkit.engine.device import generator_states, restore_generators
from darkit.engine.steps.optim import restore_optimizer
from darkit.errors import CheckpointMismatchError, ConfigError, ModelError, nearest

logger = logging.getLogger(__name__)


def loop_checkpoint(step: int, model: Any, optimizer: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint.

    Args:
        step: The step.
        model: A module, or None.
        optimizer: An optimizer, or a list or dict of them, or None.
        state: Anything else by name: objects with ``state_dict`` and ``load_state_dict``, and plain values.

    Raises:
        ModelError: ``model`` is not a module.
        ConfigError: ``optimizer`` has no state.
        CheckpointUnreadableError: A value cannot be saved; the message has its name.
    """
    _check(model, optimizer)
    states: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, nn.Module):
            states[name] = bare(value).state_dict()
        elif has_state(value):
            states[name] = state_of(value)
        else:
            values[name] = value
    content = {
        "state_dict": bare(model).state_dict() if model is not None else {},
        "model_class": class_path(type(bare(model))) if model is not None else "",
        "current_step": step,
        "optimizer_state_dict": state_of(optimizer),
        "scheduler_state_dict": None,
    }
    for name, part in (*content.items(), *states.items(), *values.items()):
        refuse_unreadable(part, name, numpy=True)
    return {**content, "loop": {"states": states, "values": values}, "rng": generator_states()}


def loop_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values in a checkpoint's content."""
    values = _part(content, "values")
    return dict(values)


def restore_loop(
    content: Mapping[str, Any], model: Any, optimizer: Any, state: Mapping[str, Any], *, generators: bool
) -> None:
    """Restore what `loop_checkpoint` collected; everything is compared with what was saved first.

    Args:
        content: The checkpoint's content.
        model: The module, or None.
        optimizer: The optimizer or optimizers, or None.
        state: The other objects by their names.
        generators: Whether to restore the generators.

    Raises:
        ModelError: ``model`` is not a module.
        ConfigError: ``optimizer`` has no state, or a plain value is given that cannot be restored in place.
        CheckpointMismatchError: Something was not saved, or does not fit.
    """
    _check(model, optimizer)
    states, values = _part(content, "states"), _part(content, "values")
    weights, optimizers = content.get("state_dict"), content.get("optimizer_state_dict")
    saved = [*(["model"] if weights else []), *(["optimizer"] if optimizers is not None else []), *states, *values]
    asked = {"model": model, "optimizer": optimizer} | dict(state)
    step = content.get("current_step")
    for name, value in asked.items():
        if value is not None and name not in saved and not (name == "model" and not bare(value).state_dict()):
            raise CheckpointMismatchError(f"The checkpoint of step {step} has no {name!r}. {nearest(name, saved)}.")
        if name in values and type(value) not in (dict, list):
            raise ConfigError(
                f"{name!r} is a plain value, which restore() cannot change: read it as run.state[{name!r}]."
            )
        if name in states and not (isinstance(value, nn.Module) or has_state(value)):
            raise CheckpointMismatchError(f"The checkpoint's state of {name} does not fit this {type(value).__name__}.")
    if model is not None:
        load_weights(model, content)
    if isinstance(optimizer, Optimizer) and isinstance(optimizers, Mapping):
        restore_optimizer(optimizer, None, content, (), own_schedule=False)
    elif optimizer is not None:
        load_state("optimizer", optimizer, optimizers)
    for name, value in state.items():
        if name in values:
            _refill(name, value, values[name])
        elif isinstance(value, nn.Module):
            load_weights(value, {"state_dict": states[name], "model_class": name})
        else:
            load_state(name, value, states[name])
    left = [name for name in saved if asked.get(name) is None and name not in values]
    if left:
        logger.warning("Not restored, because restore() was not given it: %s.", ", ".join(left))
    if generators and "rng" in content:
        restore_generators(content["rng"])


def _check(model: Any, optimizer: Any) -> None:
    if model is not None and not isinstance(model, nn.Module):
        raise ModelError(
            f"model must be a torch.nn.Module, not {type(model).__name__}; give other models under other names."
        )
    if optimizer is not None and not has_state(optimizer):
        raise ConfigError(f"optimizer must be an optimizer, or a list or dict of them, not {type(optimizer).__name__}.")


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    loop = content.get("loop")
    part = loop.get(name) if isinstance(loop, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _refill(name: str, value: Any, saved: Any) -> None:
    """Restore a plain list or dict in place."""
    if type(value) is not type(saved):
        raise CheckpointMismatchError(
            f"The checkpoint has a {type(saved).__name__} as {name!r}, which does not fit this {type(value).__name__}."
        )
    value.clear()
    value.update(saved) if isinstance(value, dict) else value.extend(saved)
