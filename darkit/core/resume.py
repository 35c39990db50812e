"""Resuming a hand-written loop: which states it gets back, and when."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from darkit.core.loop_state import has_state, load_state, schedules_of
from darkit.core.recorder import RunParts
from darkit.engine.checkpoints.weights import load_weights
from darkit.engine.description.describe import describe_model
from darkit.engine.device import restore_generators
from darkit.engine.log.progress import announce
from darkit.engine.resume import Changes, Resume, check_settings, find_resume
from darkit.engine.steps.averages import raw_weights
from darkit.engine.steps.optim import load_schedule, restore_groups, restore_optimizer
from darkit.errors import CheckpointMismatchError, ConfigError

logger = logging.getLogger(__name__)


class ResumeState:
    """The states of a checkpoint that a hand-written loop resumes from.

    The model has the checkpoint's weights at once, and `restore` restores the generators. The loop makes the optimizer,
    the schedule and everything else that has a state: they get their states when they are assigned to
    ``self.optimizer``, ``self.scheduler`` or the attribute that they were saved from.

    Args:
        model: The model, which gets the weights.
        found: The checkpoint.
        changes: Settings that differ from those before.
        attributes: The trainer's attributes, as ``vars`` returns them.

    Attributes:
        first: The index of the next step, counted from 0.
        moved: Whether the loop has set a step.
        pending: States of attributes that the loop has not set yet.
    """

    def __init__(self, model: nn.Module, found: Resume, changes: Changes, attributes: Mapping[str, Any]) -> None:
        self.found = found
        self.changes = changes
        self.first = found.step if found.same_run else 0
        self.moved = False
        self.pending: dict[str, Any] = {}
        self._attributes = attributes
        if found.content:
            load_weights(model, raw_weights(found.content) if found.same_run else found.content)

    def restore(self, load_own: Callable[[Any], Any] | None) -> None:
        """Restore every generator, and the state of each attribute that the trainer has already.

        Args:
            load_own: The trainer's ``load_state_dict``, if its class has one.

        Raises:
            CheckpointMismatchError: A state does not fit.
        """
        content = self.found.content if self.found.same_run else {}
        if "rng" in content:
            restore_generators(content["rng"])
        further = content.get("trainer") or {}
        self.pending = dict(further.get("attributes") or {})
        if "own" in further:
            if load_own is None:
                raise CheckpointMismatchError(
                    "The checkpoint has a state of the trainer itself, but its class has no load_state_dict()."
                )
            load_own(further["own"])
        for name, value in list(self._attributes.items()):
            if name in self.pending or (name in ("optimizer", "scheduler") and value is not None):
                self.restore_attribute(name, value)

    def restore_attribute(self, name: str, value: Any) -> None:
        """Called when the loop assigns an attribute of its trainer: load the state saved from it.

        Raises:
            ConfigError: The loop starts before the step that it resumes from.
            CheckpointMismatchError: The state does not fit.
        """
        if name == "current_step" and value < self.first:
            raise ConfigError(
                f"The run {self.found.run.name!r} resumes after {self.first} steps, so its loop must start at "
                f"self.current_step, which is {self.first}, not at {value}."
            )
        self.moved = self.moved or name == "current_step"
        content = self.found.content if self.found.same_run else {}
        if name == "optimizer" and content:
            self._restore_optimizer(value, content)
        elif name == "scheduler" and content.get("scheduler_state_dict"):
            self._restore_schedule(value, content)
        elif name in self.pending and has_state(value):
            load_state(f"self.{name}", value, self.pending.pop(name))
            for schedule in schedules_of(value):
                self._restore_groups(schedule, content)

    def warn_of_pending(self) -> None:
        """Warn of states of attributes that the loop has not set by its first step."""
        if self.pending:
            names = ", ".join(f"self.{name}" for name in self.pending)
            logger.warning("The checkpoint has states of attributes that this loop did not set: %s.", names)
            self.pending = {}

    def _restore_optimizer(self, value: Any, content: Mapping[str, Any]) -> None:
        saved = content.get("optimizer_state_dict")
        if isinstance(value, Optimizer):
            restore_optimizer(value, None, content, self.changes, own_schedule=False)
        elif has_state(value) and saved is not None:
            load_state("self.optimizer", value, saved)

    def _restore_schedule(self, value: Any, content: Mapping[str, Any]) -> None:
        if isinstance(value, LRScheduler):
            load_schedule(value, content["scheduler_state_dict"])
        elif has_state(value):
            load_state("self.scheduler", value, content["scheduler_state_dict"])
        for schedule in schedules_of(value):
            self._restore_groups(schedule, content)

    def _restore_groups(self, schedule: LRScheduler, content: Mapping[str, Any]) -> None:
        """Undo what the constructor of a schedule did to its optimizer, whichever of the loop's it is."""
        saved = content.get("optimizer_state_dict")
        optimizers = self._attributes.get("optimizer")
        if isinstance(optimizers, Mapping) and isinstance(saved, Mapping):
            pairs = [(part, saved.get(key)) for key, part in optimizers.items()]
        elif isinstance(optimizers, list | tuple) and isinstance(saved, list):
            pairs = list(zip(optimizers, saved, strict=False))
        else:
            pairs = [(optimizers, saved)]
        attributes = (content.get("trainer") or {}).get("attributes") or {}
        pairs += [(self._attributes.get(name), state) for name, state in attributes.items()]
        for optimizer, state in pairs:
            if optimizer is schedule.optimizer:
                restore_groups(optimizer, state, self.changes)


def find_resume_state(
    parts: RunParts, resume: bool | str | None, allowed: bool, attributes: Mapping[str, Any]
) -> ResumeState | None:
    """Find what a trainer's loop resumes from, and load its weights; None starts a new run.

    The name in the config of ``parts`` is set to that of a run that is resumed. ``allowed`` says whether settings that
    change the mathematics may differ.

    Raises:
        DarkitError: The run or checkpoint does not exist, or it does not fit.
    """
    found = find_resume(parts.root, parts.config, resume)
    if found is None:
        return None
    changes: Changes = {}
    if found.same_run:
        changes = check_settings(
            found,
            parts.config,
            describe_model(parts.model).values,
            parts.tokenizer,
            allowed,
            max_step=parts.config.max_step,
        )
    state = ResumeState(parts.model, found, changes, attributes)
    announce(found.describe(changes))
    return state
