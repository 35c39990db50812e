"""Optimizers and learning-rate schedules of `torch.optim`, by name or as given by the user."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from darkit.engine.config import TrainerConfig
from darkit.engine.steps.fused import note_choice, refuse_other_kernel, use_fused, with_kernel
from darkit.engine.steps.parts import is_split, part_of
from darkit.errors import CheckpointMismatchError, ConfigError, ModelError, nearest

logger = logging.getLogger(__name__)
_SETTINGS = ("lr", "weight_decay", "betas")
_OF_SCHEDULES = frozenset(  # keys that torch's schedules add to a group
    ("params", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")
)
_CLOSURE = (
    "{0} computes the loss several times a step through a closure, which fit does not give it. Use another optimizer, "
    "or write the loop in the train method of a darkit.core.Trainer subclass."
)
MakeOptimizer = Callable[[Any], Optimizer]


def make_optimizer(
    model: nn.Module,
    config: TrainerConfig,
    given: Optimizer | MakeOptimizer | None,
    *,
    fused: bool | None = None,
) -> Optimizer:
    """Return the optimizer of a run.

    Args:
        model: The model. Frozen parameters are included, so that they train once they are unfrozen: an optimizer skips
            parameters without a gradient.
        config: Class, learning rate, weight decay and betas, if the class has them.
        given: The user's optimizer, or a callable of the parameters (such as a class or a `functools.partial`), or
            None for the config's.
        fused: What ``fused='auto'`` in the config stands for; None uses the fused kernel where it is available.

    Raises:
        ConfigError: The optimizer is unknown, not an optimizer, or not of this model, or lacks the kernel asked for.
        ModelError: The model has nothing to train.
    """
    if isinstance(given, Optimizer):
        return _check_given(given, model, config)
    parameters = [one for one in model.parameters() if one.is_floating_point() or one.is_complex()]
    if not any(parameter.requires_grad for parameter in parameters):
        raise ModelError(f"The model {type(model).__name__} has no parameter that requires a gradient.")
    if given is None:
        cls = optimizer_class(config.optimizer)
        known = inspect.signature(cls).parameters
        settings = {name: getattr(config, name) for name in _SETTINGS if name in known}
        if use_fused(model, cls, parameters, config.fused, config.precision, fused):
            settings["fused"] = True
        try:
            chosen = cls(parameters, **settings)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The optimizer {config.optimizer!r} cannot be made for this model: {error}") from error
        note_choice(chosen, config.fused)
        return chosen
    made = given(parameters) if callable(given) else given
    if isinstance(made, list | tuple) and len(made) == 1:
        (made,) = made
    parts: Any = made.values() if isinstance(made, Mapping) else made
    if isinstance(made, list | tuple | Mapping) and any(isinstance(part, Optimizer) for part in parts):
        raise ConfigError(
            f"fit steps one optimizer, not {len(made)}. Give the parameters to one optimizer as groups, or write the "
            "loop in the train method of a darkit.core.Trainer subclass."
        )
    if not isinstance(made, Optimizer):
        raise ConfigError(f"optimizer= must be or make a torch optimizer, not {type(made).__name__}.")
    return _check_given(made, model, config)


def _check_given(optimizer: Optimizer, model: nn.Module, config: TrainerConfig) -> Optimizer:
    if needs_closure(type(optimizer)):
        raise ConfigError(_CLOSURE.format(type(optimizer).__name__))
    known = set(model.parameters())
    if not any(parameter in known for group in optimizer.param_groups for parameter in group["params"]):
        raise ConfigError(
            f"optimizer= holds no parameter of this {type(model).__name__}: make it of model.parameters(), or give a "
            "callable of the parameters."
        )
    refuse_other_kernel(optimizer, config.fused)
    return optimizer


def needs_closure(cls: type[Optimizer]) -> bool:
    """Return whether an optimizer's step needs a closure that recomputes the loss, as that of LBFGS."""
    own = list(inspect.signature(cls.step).parameters.values())[1:]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(parameter.default is parameter.empty and parameter.kind not in variable for parameter in own)


def optimizer_class(name: str) -> type[Optimizer]:
    """Find a class of `torch.optim` by its name in any case. Raises `ConfigError`."""
    classes = {
        key.lower(): cls
        for key, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
    }
    found = classes.get(name.lower())
    if found is not None and needs_closure(found):
        raise ConfigError(_CLOSURE.format(found.__name__))
    if found is None:
        raise ConfigError(f"Unknown optimizer {name!r} in torch.optim. {nearest(name.lower(), classes)}.")
    return found


def clear_gradients(optimizer: Optimizer) -> None:
    """Do what `Optimizer.zero_grad` does, without its entry in torch's profiler, which costs more than the rest."""
    if type(optimizer).zero_grad is not Optimizer.zero_grad or "zero_grad" in vars(optimizer):
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def learning_rate_factor(step: int, config: TrainerConfig) -> float:
    """Return the factor of `lr` for the step after ``step`` completed ones.

    Linear warm-up, then constant, linear decay, or the half cosine of Loshchilov and Hutter, "SGDR" (2017), to 0 at
    ``max_step``.
    """
    if step < config.warmup_step:
        return (step + 1) / (config.warmup_step + 1)
    if config.scheduler == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_step) / max(1, config.max_step - config.warmup_step))
    return 1.0 - progress if config.scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def restore_optimizer(
    optimizer: Optimizer,
    schedule: LRScheduler | None,
    state: Mapping[str, Any],
    changed: Collection[str],
    *,
    own_schedule: bool,
) -> None:
    """Restore optimizer and schedule from a checkpoint.

    Learning rate, weight decay, betas and kernel that were changed since keep their new values. An optimizer of another
    class, which an override allows, starts without a state.

    Args:
        optimizer: The optimizer, newly made with the config.
        schedule: Its schedule, or None.
        state: The checkpoint's content.
        changed: Names of the settings that were changed.
        own_schedule: Whether the schedule, or its absence, comes from the config and not from the user.

    Raises:
        CheckpointMismatchError: The checkpoint's optimizer or schedule is of another kind.
    """
    fresh = [{name: group[name] for name in _SETTINGS if name in group} for group in optimizer.param_groups]
    bases = [_number(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    saved = state.get("optimizer_state_dict")
    if saved is None or "optimizer" in changed:
        logger.warning("The optimizer starts without a state: the checkpoint has none of its class.")
    else:
        _load_optimizer(optimizer, with_kernel(optimizer, saved, changed))
        before = [_number(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        for group, settings in zip(optimizer.param_groups, fresh, strict=True):
            group.update({name: value for name, value in settings.items() if name in changed and name != "lr"})
        if "lr" not in changed:
            bases = before
        elif not own_schedule:
            _scale(optimizer, schedule, before, bases)
    if own_schedule:
        _restore_own(optimizer, schedule, state["current_step"], bases, changed)
    elif schedule is not None and state.get("scheduler_state_dict"):
        load_schedule(schedule, state["scheduler_state_dict"])
        if "lr" in changed:
            schedule.base_lrs = list(bases)


def _load_optimizer(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    groups = saved.get("param_groups", [])
    settings = [sorted(set(group) - _OF_SCHEDULES) for group in optimizer.param_groups]
    found = [sorted(set(group) - _OF_SCHEDULES) for group in groups]
    if settings != found:
        raise CheckpointMismatchError(
            f"The checkpoint's optimizer is another than this {type(optimizer).__name__}: it has parameter groups with "
            f"{found}, not {settings}."
        )
    try:
        optimizer.load_state_dict(split_state(optimizer, _with_frozen(optimizer, saved)))
    except (ValueError, KeyError) as error:
        raise CheckpointMismatchError(
            f"The checkpoint's optimizer state does not fit this {type(optimizer).__name__}: {error}."
        ) from error
    _lay_out(optimizer)


def _lay_out(optimizer: Optimizer) -> None:
    """Give state the layout in memory of its parameter, which fused kernels take for granted.

    Checkpoints of earlier versions have another one where that is not the usual one, such as channels last.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"] if one in optimizer.state]
    for parameter in parameters:
        state = optimizer.state[parameter]
        for key, value in state.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape or is_split(value):
                continue
            if value.layout is torch.strided and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def _with_frozen(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved state that includes frozen parameters, which older checkpoints left out of the groups."""
    groups: list[dict[str, Any]] = []
    places: dict[Any, int] = {}
    first = 0
    for own, group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        numbers = range(first, first + len(own["params"]))
        first += len(numbers)
        trained = [number for number, one in zip(numbers, own["params"], strict=True) if one.requires_grad]
        found = numbers if len(group["params"]) == len(numbers) else trained
        if len(found) != len(group["params"]):
            return dict(saved)
        places |= dict(zip(group["params"], found, strict=True))
        groups.append({**group, "params": list(numbers)})
    state = {places.get(key, key): value for key, value in saved["state"].items()}
    return {**saved, "state": state, "param_groups": groups}


def split_state(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return a saved state whose tensors are split over processes as the parameters are."""
    numbered = {
        number: one
        for own, group in zip(optimizer.param_groups, saved["param_groups"], strict=True)
        for number, one in zip(group["params"], own["params"], strict=True)
        if is_split(one)
    }
    if not numbered:
        return saved
    state = {}
    for number, values in saved["state"].items():
        like = numbered.get(number)
        state[number] = {
            key: part_of(value, like)
            if like is not None and isinstance(value, Tensor) and value.shape == like.shape
            else value
            for key, value in values.items()
        }
    return {**saved, "state": state}


def load_schedule(schedule: LRScheduler, saved: Mapping[str, Any]) -> None:
    """Load a schedule's state. Raises `CheckpointMismatchError` if it is of another class."""
    wanted, found = sorted(schedule.state_dict()), sorted(saved)
    if wanted != found:
        raise CheckpointMismatchError(
            f"The checkpoint's schedule is another than this {type(schedule).__name__}: it has {found}, not {wanted}."
        )
    schedule.load_state_dict(dict(saved))


def restore_groups(optimizer: Optimizer, saved: Any, changed: Collection[str]) -> None:
    """Undo what the constructor of a schedule set in the groups of an optimizer with a restored state.

    ``saved`` is its state in the checkpoint; the settings that were ``changed`` since stay.
    """
    kept = {"params", *changed, *(_OF_SCHEDULES if "lr" in changed else ())}
    groups = saved.get("param_groups", ()) if isinstance(saved, Mapping) else ()
    for group, before in zip(optimizer.param_groups, groups, strict=False):
        group.update({key: value for key, value in before.items() if key not in kept})


def _restore_own(
    optimizer: Optimizer, schedule: LRScheduler | None, step: int, bases: list[float], changed: Collection[str]
) -> None:
    """Set the config's schedule to a step; it is a function of the step, even if changed or new."""
    if isinstance(schedule, LambdaLR):
        schedule.base_lrs = list(bases)
        schedule.last_epoch, schedule._step_count = step, step + 1
        rates = [base * factor(step) for base, factor in zip(bases, schedule.lr_lambdas, strict=True)]
        schedule._last_lr = list(rates)
    elif {"lr", "scheduler", "warmup_step", "optimizer"}.intersection(changed):
        rates = bases
    else:
        return
    for group, base, rate in zip(optimizer.param_groups, bases, rates, strict=True):
        _set(group, "lr", rate)
        if schedule is None:
            group.pop("initial_lr", None)
        else:
            group["initial_lr"] = base


def _scale(optimizer: Optimizer, schedule: LRScheduler | None, before: list[float], now: list[float]) -> None:
    """Scale the learning rate to the one that the user's schedule would have reached from the new base."""
    for group, old, new in zip(optimizer.param_groups, before, now, strict=True):
        _set(group, "lr", _number(group["lr"]) * new / old if old else new)
        if schedule is not None:
            group["initial_lr"] = new


def _set(group: dict[str, Any], name: str, value: float) -> None:
    if isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def _number(value: Any) -> float:
    return value.item() if isinstance(value, Tensor) else value
