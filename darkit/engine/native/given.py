"""What a module gives to its optimizers and schedules, which Lightning restores with the settings of a checkpoint.

It is taken when Lightning has made them and before it restores them, so nothing that a schedule or a callback makes of
them later is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning

from darkit.engine.native.plain import PlainModule
from darkit.engine.native.state import KEY
from darkit.engine.steps.fused import is_chosen, kernel_settings
from darkit.engine.steps.own_settings import KEY as GIVEN_SETTINGS
from darkit.engine.steps.own_settings import OwnSettings, is_trained, optimizer_settings, schedule_settings


def compare_given(trainer: lightning.Trainer, own: OwnSettings, content: Mapping[str, Any]) -> set[str]:
    """Compare the settings of new optimizers and schedules with those that a checkpoint's training was given.

    Args:
        trainer: The trainer, whose optimizers were made and are not restored.
        own: Compares them; afterwards it has the settings for the next checkpoints.
        content: The checkpoint's content, or empty.

    Returns:
        As `OwnSettings.compare`.

    Raises:
        ConfigError: A fork has other settings, which it cannot honour.
    """
    now, before = _given(trainer), content.get(KEY, {}).get(GIVEN_SETTINGS)
    is_chosen_here = any(is_chosen(optimizer) for optimizer in trainer.optimizers)
    if now is not None and isinstance(before, dict) and not is_chosen_here:
        states = content.get("optimizer_states") or ()
        now |= _numbered("optimizers", [kernel_settings(optimizer.param_groups) for optimizer in trainer.optimizers])
        before = before | _numbered("optimizers", [kernel_settings(state.get("param_groups", ())) for state in states])
    held = own.compare_settings(now, before)
    own.refuse()
    return held


def _given(trainer: lightning.Trainer) -> dict[str, Any] | None:
    """Return the settings by name, and the classes; None if an optimizer was trained before."""
    if any(is_trained(optimizer) for optimizer in trainer.optimizers):
        return None
    module = trainer.lightning_module
    schedules: list[Any] = [config.scheduler for config in trainer.lr_scheduler_configs]
    found: dict[str, Any] = {}
    if not isinstance(module, PlainModule) or module.has_own_optimizer:
        found["optimizers"] = [type(optimizer).__name__ for optimizer in trainer.optimizers]
    if isinstance(module, PlainModule) and not module.has_own_schedule:
        schedules = []  # that of the config is a function of the step
    else:
        found["schedulers"] = [type(schedule).__name__ for schedule in schedules]
    found |= _numbered("optimizers", [optimizer_settings(optimizer) for optimizer in trainer.optimizers])
    return found | _numbered("schedulers", [schedule_settings(schedule) for schedule in schedules])


def _numbered(kind: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of several optimizers, or schedules, such as ``optimizers[1].lr``; of one as they are."""
    if len(parts) == 1:
        return dict(parts[0])
    return {
        f"{kind}[{number}].{key.partition('.')[2]}": value
        for number, part in enumerate(parts)
        for key, value in part.items()
    }
