"""The state that a hand-written loop keeps on its trainer besides the model."""

from __future__ import annotations

import logging
import operator
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from darkit.engine.checkpoints.savable import is_readable
from darkit.errors import CheckpointMismatchError, ConfigError

logger = logging.getLogger(__name__)
_LOST = (bool, int, float, Tensor, numpy.ndarray, numpy.random.Generator, numpy.random.RandomState, list, dict, set)


def has_state(value: Any) -> bool:
    """Return whether the state of a value, or of each value of a list, tuple or dict, can be saved and loaded."""
    if (parts := _parts(value)) is not None:
        return bool(parts) and all(map(has_state, parts))
    if isinstance(value, torch.Generator):
        return True
    return all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))


def state_of(value: Any) -> Any:
    """Return the state of a value that `has_state`, in the same list or dict; None for any other."""
    if not has_state(value):
        return None
    if isinstance(value, Mapping):
        return {key: state_of(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [state_of(part) for part in value]
    return value.get_state() if isinstance(value, torch.Generator) else value.state_dict()


def load_state(name: str, value: Any, state: Any) -> None:
    """Load a saved state into a value, which errors call ``name``.

    Raises:
        CheckpointMismatchError: It does not fit.
    """
    if (parts := _parts(value)) is not None:
        states = _parts(state)
        if states is None or len(states) != len(parts):
            raise CheckpointMismatchError(f"The checkpoint's state of {name} does not fit its {len(parts)} parts.")
        for part, saved in zip(parts, states, strict=True):
            load_state(name, part, saved)
        return
    try:
        if isinstance(value, torch.Generator):
            value.set_state(state.cpu())
        else:
            value.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointMismatchError(
            f"The checkpoint's state of {name} does not fit this {type(value).__name__}: {error}."
        ) from error


class LoopState:
    """Collect the state of a trainer's attributes besides model, optimizer and schedule.

    A trainer class with ``state_dict`` and ``load_state_dict`` saves its state with those instead.

    Args:
        owner: The trainer; the attributes that it has now are darkit's.
        others: Attributes that it had before.
    """

    def __init__(self, owner: Any, others: Collection[str] = ()) -> None:
        self.owner = owner
        self._known = {*vars(owner), "current_step", "scheduler"}.difference(others)
        self._warned = False

    def collect(self) -> dict[str, Any]:
        """Return the further state, for a checkpoint; warn once of attributes that cannot be saved."""
        if has_state(self.owner):
            return {"own": self.owner.state_dict()}
        states, lost = {}, []
        for name, value in self._attributes():
            state = state_of(value)
            if state is None:
                lost += [name] if isinstance(value, _LOST) else []
            elif is_readable(state):
                states[name] = state
            else:
                lost.append(name)
        if lost and not self._warned:
            self._warned = True
            logger.warning(
                "The checkpoints of this %s do not include: %s. Define state_dict() and load_state_dict(state) to save "
                "what a resumed loop needs.",
                type(self.owner).__name__,
                ", ".join(f"self.{name}" for name in lost),
            )
        return {"attributes": states} if states else {}

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        parts = set(map(id, self.owner.model.modules()))
        tensors = set(map(id, (*self.owner.model.parameters(), *self.owner.model.buffers())))
        for name, value in vars(self.owner).items():
            if name in self._known or id(value) in parts:
                continue
            if isinstance(value, nn.Module) and {*map(id, value.parameters()), *map(id, value.buffers())} <= tensors:
                continue  # the model in a wrapper, or a module without weights
            yield name, value


def schedules_of(value: Any) -> list[LRScheduler]:
    """Return the learning-rate schedules in a value: itself, or those in a list, tuple or dict."""
    parts = _parts(value)
    return [part for part in ([value] if parts is None else parts) if isinstance(part, LRScheduler)]


def _parts(value: Any) -> list[Any] | None:
    """Return the values in a list, tuple or dict; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else None


def whole_step(value: Any) -> int:
    """Return a whole number of any type as a Python int. Raises `ConfigError` for anything else."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigError(
            f"current_step must be a whole number, the index of the step that was just done, not {value!r}."
        ) from error
