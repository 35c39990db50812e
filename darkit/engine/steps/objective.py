"""What a run records of a loss, metrics and an evaluation that only the code of its script has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_objective(loss: Any, metrics: Mapping[str, Any] | None, *, own_validation: bool) -> dict[str, Any]:
    """Describe what was given beside the model.

    Args:
        loss: The ``loss=`` of a training, or None.
        metrics: Its ``metrics=``, or None.
        own_validation: Whether a trainer's own ``validate`` evaluates.

    Returns:
        ``loss``, ``metrics`` (by name) and ``validate``, each only if it was given; callables as their import path, or
        that of their class.
    """
    return {
        **({"loss": callable_path(loss)} if loss is not None else {}),
        **({"metrics": {str(name): callable_path(one) for name, one in metrics.items()}} if metrics else {}),
        **({"validate": True} if own_validation else {}),
    }


def callable_path(value: Any) -> str:
    """Return the import path of a function or class, or that of the class of any other object."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
