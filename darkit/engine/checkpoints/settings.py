"""Settings of optimizers and the place of schedules at the end of a step: callbacks change them before the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

_PLAIN = frozenset((type(None), bool, int, float, str, tuple, list))


class OptimizerSettings:
    """Copies of what optimizers have in their parameter groups, such as the learning rate, and marks of schedules."""

    def __init__(self) -> None:
        self._optimizers: Sequence[Optimizer] = ()
        self._schedules: Sequence[Any] = ()
        self._groups: list[list[dict[str, Any]]] = []
        self._tensors: list[tuple[Tensor, int]] = []
        self._places: list[tuple[Any, Any]] = []

    def record(self, optimizers: Sequence[Optimizer], schedules: Sequence[Any]) -> None:
        """Record the current settings, in loops that make no calls: this is part of every step."""
        self._optimizers, self._schedules = optimizers, schedules
        self._groups, self._tensors = [], []
        for optimizer in optimizers:
            groups = list(map(dict.copy, optimizer.param_groups))
            self._groups.append(groups)
            for group in groups:
                for value in group.values():
                    if type(value) not in _PLAIN and isinstance(value, Tensor):
                        self._tensors.append((value, value._version))
        self._places = list(map(_place, schedules))

    def put_into(self, states: Sequence[dict[str, Any]]) -> None:
        """Put the recorded settings into what the optimizers' ``state_dict()`` returns now.

        Raises:
            ValueError: A setting that is a tensor, the number of groups or a schedule has changed since.
        """
        for (epoch, rates), schedule in zip(self._places, self._schedules, strict=True):
            now = _place(schedule)
            if now[0] != epoch or now[1] is not rates:
                raise ValueError("the schedule was stepped since the end of the step, before the next one")
        if any(value._version != version for value, version in self._tensors):
            raise ValueError("a setting of the optimizer has changed in place since the end of the step")
        for optimizer, state, groups in zip(self._optimizers, states, self._groups, strict=True):
            changed = [
                now.keys() != before.keys() or any(now[key] is not value for key, value in before.items())
                for now, before in zip(optimizer.param_groups, groups, strict=False)
            ]
            if len(optimizer.param_groups) == len(groups) and not any(changed):
                continue
            found = state.get("param_groups", ())
            if not len(optimizer.param_groups) == len(groups) == len(found):
                raise ValueError("the parameter groups of the optimizer have changed since the end of the step")
            state["param_groups"] = [_settings(now, before) for now, before in zip(found, groups, strict=True)]


def _place(schedule: Any) -> tuple[Any, Any]:
    """Return two things of which torch's schedules change at least one in every step."""
    return getattr(schedule, "last_epoch", None), getattr(schedule, "_last_lr", None)


def _settings(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {key: value if key == "params" else before[key] for key, value in now.items() if key in before}
