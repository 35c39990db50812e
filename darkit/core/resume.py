"""A hand-written loop that goes on: what it is given back, and when."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from darkit.core.loop_state import give_state, has_state, schedules_of
from darkit.engine.checkpoints.checkpoint import load_weights
from darkit.engine.description.describe import describe_model
from darkit.engine.device import restore_generators
from darkit.engine.log.progress import announce
from darkit.engine.resume import Changes, Resume, check_settings, describe_changes, find_resume
from darkit.engine.steps.averages import raw_weights
from darkit.engine.steps.optim import load_schedule, restore_groups, restore_optimizer
from darkit.errors import ConfigError

if TYPE_CHECKING:
    from darkit.core.trainer import Trainer

logger = logging.getLogger(__name__)


class GoingOn:
    """What a trainer's hand-written loop goes on from.

    The model has the checkpoint's weights at once, and `restore` puts the generators back. The optimizer, the schedule
    and everything else that has a state are the loop's to make: they get their states when they are assigned to
    ``self.optimizer``, ``self.scheduler`` or the attribute that they were saved from.

    Args:
        owner: The trainer.
        found: What was found.
        changes: Settings that differ from those before.

    Attributes:
        first: The index of the next step, counted from 0.
        moved: Whether the loop has set a step.
        waiting: States of attributes that the loop has not set yet.
    """

    def __init__(self, owner: Trainer, found: Resume, changes: Changes) -> None:
        self.found = found
        self.changes = changes
        self.first = found.step if found.same_run else 0
        self.moved = False
        self.owner = owner
        self.waiting: dict[str, Any] = {}
        if found.content:
            load_weights(owner.model, raw_weights(found.content) if found.same_run else found.content)

    def restore(self, owner: Trainer) -> None:
        """Puts every generator back to where the checkpoint left it, and gives their states to what is there already.

        Raises:
            CheckpointMismatchError: A state does not fit.
        """
        content = self.found.content if self.found.same_run else {}
        if "rng" in content:
            restore_generators(content["rng"])
        further = content.get("trainer") or {}
        self.waiting = dict(further.get("attributes") or {})
        if "own" in further:
            owner.load_state_dict(further["own"])  # type: ignore[attr-defined]
        for name, value in list(vars(owner).items()):
            if name in self.waiting or (name in ("optimizer", "scheduler") and value is not None):
                self.take(name, value)

    def take(self, name: str, value: Any) -> None:
        """Called when the loop sets an attribute of its trainer: gives a value the state that it had.

        Raises:
            ConfigError: A step is being done again.
            CheckpointMismatchError: The state is that of something else.
        """
        if name == "current_step" and value < self.first:
            raise ConfigError(
                f"The run {self.found.run.name!r} goes on after {self.first} steps, so its loop has to start at "
                f"self.current_step, which is {self.first}, not at {value}."
            )
        self.moved = self.moved or name == "current_step"
        content = self.found.content if self.found.same_run else {}
        if name == "optimizer" and content:
            self._take_optimizer(value, content)
        elif name == "scheduler" and content.get("scheduler_state_dict"):
            self._take_schedule(value, content)
        elif name in self.waiting and has_state(value):
            give_state(name, value, self.waiting.pop(name))
            for schedule in schedules_of(value):
                self._restore_groups(schedule, content)

    def tell_of_the_rest(self) -> None:
        """Warns of states for which the loop has made nothing by its first step."""
        if self.waiting:
            names = ", ".join(f"self.{name}" for name in self.waiting)
            logger.warning("The checkpoint has states for what this loop did not set: %s.", names)
            self.waiting = {}

    def _take_optimizer(self, value: Any, content: Mapping[str, Any]) -> None:
        saved = content.get("optimizer_state_dict")
        if isinstance(value, Optimizer):
            restore_optimizer(value, None, content, self.changes, own_schedule=False)
        elif has_state(value) and saved is not None:
            give_state("optimizer", value, saved)

    def _take_schedule(self, value: Any, content: Mapping[str, Any]) -> None:
        if isinstance(value, LRScheduler):
            load_schedule(value, content["scheduler_state_dict"])
        elif has_state(value):
            give_state("scheduler", value, content["scheduler_state_dict"])
        for schedule in schedules_of(value):
            self._restore_groups(schedule, content)

    def _restore_groups(self, schedule: LRScheduler, content: Mapping[str, Any]) -> None:
        """Undoes what making a schedule did to its optimizer, whichever of the loop's it is."""
        saved = content.get("optimizer_state_dict")
        optimizers = self.owner.optimizer
        if isinstance(optimizers, Mapping) and isinstance(saved, Mapping):
            pairs = [(part, saved.get(key)) for key, part in optimizers.items()]
        elif isinstance(optimizers, list | tuple) and isinstance(saved, list):
            pairs = list(zip(optimizers, saved, strict=False))
        else:
            pairs = [(optimizers, saved)]
        attributes = (content.get("trainer") or {}).get("attributes") or {}
        pairs += [(getattr(self.owner, name, None), state) for name, state in attributes.items()]
        for optimizer, state in pairs:
            if optimizer is schedule.optimizer:
                restore_groups(optimizer, state, self.changes)


def go_on(owner: Trainer, resume: bool | str | None, allowed: bool) -> GoingOn | None:
    """Finds what a trainer's loop goes on from, if from anything, and loads its weights.

    Args:
        owner: The trainer; its config's name is set when it goes on with a run.
        resume: As `darkit.fit` takes it.
        allowed: Whether settings that change the mathematics may differ.

    Raises:
        DarkitError: There is no such run or checkpoint, or it does not fit.
    """
    found = find_resume(Path(owner.root), owner.config, resume)
    if found is None:
        return None
    changes: Changes = {}
    if found.same_run:
        changes = check_settings(found, owner.config, describe_model(owner.model).values, owner.tokenizer, allowed)
    going_on = GoingOn(owner, found, changes)
    announce(found.description + (f" Changed: {describe_changes(changes)}." if changes else ""))
    return going_on
