"""What a user's class says of its own loss: its methods and their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

TARGETS = ("target", "targets", "label", "labels", "y", "y_true")  # names of a batch's target


def own_method(model: nn.Module) -> tuple[str, Callable[..., Any] | None]:
    """Return the name and method with which a model computes its own loss; none is ``("", None)``."""
    found = ((name, method_of(model, name)) for name in ("training_step", "loss"))
    return next(((name, method) for name, method in found if method is not None), ("", None))


def method_of(model: nn.Module, name: str) -> Callable[..., Any] | None:
    """Return a method of the model's class, unless it is inherited from LightningModule."""
    import lightning  # slow to load, and a prediction needs no loss

    function = getattr(type(model), name, None)
    if not inspect.isfunction(function) or function is getattr(lightning.LightningModule, name, None):
        return None
    return getattr(model, name)  # type: ignore[no-any-return]


def positional(method: Callable[..., Any], *, all_of_them: bool = False) -> list[str]:
    """Return the names of the positional parameters: the required ones, or all."""
    return [
        parameter.name
        for parameter in inspect.signature(method).parameters.values()
        if (all_of_them or parameter.default is parameter.empty)
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def takes_target(method: Callable[..., Any]) -> bool:
    """Return whether a method called ``loss`` takes outputs and target, and not a batch, or a batch and its index."""
    names = positional(method, all_of_them=True)
    return len(names) > 1 and (len(positional(method)) > 1 or names[1] in TARGETS) and "batch" not in names[0]
