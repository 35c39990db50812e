"""Fused optimizer kernels: one pass over the weights in a step, instead of several operations for each parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from darkit.engine.steps.parts import is_dense, is_split
from darkit.errors import ConfigError

_DEVICES = ("cpu", "cuda", "mps")
_WITHOUT_MPS = (torch.optim.Adagrad,)
_SCALED = "16-mixed"
_chosen: WeakSet[Optimizer] = WeakSet()
KERNELS = ("fused", "foreach", "capturable")
"""Settings of an optimizer that its state in a checkpoint has too."""


def use_fused(
    model: nn.Module,
    cls: type[Optimizer],
    parameters: Sequence[Tensor],
    setting: bool | str,
    precision: str,
    recorded: bool | None = None,
) -> bool:
    """Return whether a run's optimizer uses its fused kernel.

    The results of both kinds of kernels differ by rounding errors. So ``auto`` keeps what a resumed run has used.

    Args:
        model: The model.
        cls: The class of the optimizer.
        parameters: Its parameters, on their devices.
        setting: `TrainerConfig.fused`.
        precision: `TrainerConfig.precision`.
        recorded: What the run has used so far, or None for a new run.

    Raises:
        ConfigError: The fused kernel is asked for, or was used so far, but is not available here.
    """
    if setting is False or (setting != True and recorded is False):  # noqa: E712 - "auto" is true
        return False
    problem = _why_not(model, cls, parameters, precision)
    if setting is True and problem:
        raise ConfigError(f"fused=true is not possible: {problem}. Use fused='auto'.")
    if recorded and problem:
        raise ConfigError(
            f"The run was trained with a fused optimizer kernel, which is not possible here: {problem}. fused=false "
            "with resume_overrides=true resumes without it, which is not an exact continuation."
        )
    return not problem


def note_choice(optimizer: Optimizer, setting: bool | str) -> None:
    """Note that darkit has chosen the kernel of an optimizer, and have the gradients of a fused one checked.

    Args:
        optimizer: The optimizer.
        setting: `TrainerConfig.fused`.
    """
    _chosen.add(optimizer)
    if any(group.get("fused") for group in optimizer.param_groups):
        watch_gradients(optimizer, setting)


def watch_gradients(optimizer: Optimizer, setting: bool | str) -> None:
    """Have a fused optimizer's gradients checked before each step: what they are like is not known earlier.

    A gradient that lies in memory otherwise than its parameter, as a hook may leave it, is copied: the kernels would
    take its elements in the wrong order. The first one that they cannot step, because it is sparse or has another
    dtype, makes the optimizer step without them from then on.

    Args:
        optimizer: The optimizer, made by darkit.
        setting: `TrainerConfig.fused`; if it is true, such a gradient raises `ConfigError` in the step.
    """
    optimizer.register_step_pre_hook(partial(_before_step, setting))


def _before_step(
    setting: bool | str, optimizer: Optimizer, arguments: tuple[Any, ...], settings: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Check the gradients, or have that done after the closure, in which Lightning calls the last hooks."""
    closure: Callable[[], Any] | None = arguments[1] if len(arguments) > 1 else settings.get("closure")
    if closure is None:
        _check_gradients(optimizer, setting)
        return None

    def checked() -> Any:
        loss = closure()
        _check_gradients(optimizer, setting)
        return loss

    return arguments[:1], {**settings, "closure": checked}


def _check_gradients(optimizer: Optimizer, setting: bool | str) -> None:
    strided = torch.strided
    groups = [group for group in optimizer.param_groups if group.get("fused")]
    for group in groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.layout is not strided or gradient.dtype is not parameter.dtype:
                if setting is True:
                    kind = str(gradient.dtype).removeprefix("torch.") if gradient.layout is strided else "sparse"
                    raise ConfigError(f"fused=true is not possible: a gradient is {kind}. Use fused='auto'.")
                for fused in groups:
                    fused["fused"] = None  # as it is made without the kernel
                return
            if gradient.stride() != parameter.stride() and not _lie_alike(gradient, parameter):
                parameter.grad = torch.empty_like(parameter).copy_(gradient.detach())


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    """Return whether the elements of two tensors of one shape are in the same order; dimensions of 1 do not matter."""
    strides = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or first == second for size, first, second in strides)


def refuse_other_kernel(optimizer: Optimizer, setting: bool | str) -> None:
    """Refuse a setting that contradicts the user's own optimizer, which is used as it is. Raises `ConfigError`."""
    if isinstance(setting, bool) and any(bool(group.get("fused")) != setting for group in optimizer.param_groups):
        raise ConfigError(
            f"fused={str(setting).lower()} does not apply to the given {type(optimizer).__name__}: give its "
            "constructor fused=, or leave fused='auto'."
        )


def recorded_fused(content: Mapping[str, Any]) -> bool | None:
    """Return whether the optimizer in a checkpoint used its fused kernel; None if it has no optimizer with the choice.

    Args:
        content: The checkpoint, or empty.
    """
    saved = content.get("optimizer_state_dict")
    if saved is None:  # of Lightning's own loop
        saved = next(iter(content.get("optimizer_states") or ()), None)
    groups = saved.get("param_groups", ()) if isinstance(saved, Mapping) else ()
    found = [bool(group["fused"]) for group in groups if "fused" in group]
    return all(found) if found else None


def with_kernel(optimizer: Optimizer, saved: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
    """Return a saved state whose groups use the kernel that an optimizer was made with, as far as that was changed."""
    names = [name for name in KERNELS if name in changed]
    found = saved.get("param_groups", ())
    if not names or len(found) != len(optimizer.param_groups):  # other groups are refused when they are loaded
        return dict(saved)
    groups = [
        {**group, **{name: own[name] for name in names if name in group and name in own}}
        for own, group in zip(optimizer.param_groups, found, strict=True)
    ]
    return {**saved, "param_groups": groups}


def kernel_settings(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return what groups say of their kernel, by the name that a difference is reported under."""
    known = [name for name in KERNELS if groups and all(name in group for group in groups)]
    return {f"optimizer.{name}": [group[name] for group in groups] for name in known}


def is_chosen(optimizer: Optimizer) -> bool:
    """Return whether darkit has chosen the kernel of an optimizer, which a resume may therefore change."""
    return optimizer in _chosen


def _why_not(model: nn.Module, cls: type[Optimizer], parameters: Iterable[Tensor], precision: str) -> str:
    """Return why an optimizer's fused kernel cannot be used, or an empty text."""
    if "fused" not in inspect.signature(cls).parameters:
        return f"{cls.__name__} has none"
    if precision == _SCALED:
        return f"with precision={_SCALED!r} it would step with gradients that are still scaled"
    for parameter in parameters:
        device = parameter.device.type
        if is_split(parameter):
            return "the model is split over processes"
        if not is_dense(parameter):  # the kernels step through memory, and a gradient has another layout
            return "a parameter is a part of a larger tensor"
        if not parameter.is_floating_point():
            return f"a parameter is {str(parameter.dtype).removeprefix('torch.')}"
        if device not in _DEVICES or (device == "mps" and cls in _WITHOUT_MPS):
            return f"{cls.__name__} has none on {device!r}"
    if any(getattr(part, "sparse", False) is True for part in model.modules()):
        return "it takes no sparse gradients"
    return ""
