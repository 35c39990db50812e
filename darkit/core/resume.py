"""A hand-written loop that goes on: what it is given back, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from darkit.engine.averages import raw_weights
from darkit.engine.checkpoint import load_weights
from darkit.engine.description import describe_model
from darkit.engine.device import restore_generators
from darkit.engine.display import announce
from darkit.engine.optim import load_schedule, restore_optimizer
from darkit.engine.resume import Changes, Resume, check_settings, describe_changes, find_resume
from darkit.errors import ConfigError

if TYPE_CHECKING:
    from darkit.core.trainer import Trainer


TAKEN = ("current_step", "optimizer", "scheduler")
"""What a loop sets on its trainer that `GoingOn.take` wants to hear of."""


class GoingOn:
    """What a trainer's hand-written loop goes on from.

    The model has the checkpoint's weights at once, and `restore` puts the generators back. The optimizer and the
    schedule are the loop's to make: they get their states when they are assigned to ``self.optimizer`` and
    ``self.scheduler``.

    Args:
        owner: The trainer.
        found: What was found.
        changes: Settings that differ from those before.

    Attributes:
        first: The index of the next step, counted from 0.
        moved: Whether the loop has set a step.
    """

    def __init__(self, owner: Trainer, found: Resume, changes: Changes) -> None:
        self.found = found
        self.changes = changes
        self.first = found.step if found.same_run else 0
        self.moved = False
        if found.content:
            load_weights(owner.model, raw_weights(found.content) if found.same_run else found.content)

    def restore(self) -> None:
        """Puts every generator back to where the checkpoint left it."""
        if self.found.same_run and "rng" in self.found.content:
            restore_generators(self.found.content["rng"])

    def take(self, name: str, value: Any) -> None:
        """Is told of an attribute that the loop sets on its trainer.

        Raises:
            ConfigError: A step is being done again.
            CheckpointMismatchError: The optimizer or the schedule is of another kind than the checkpoint's.
        """
        if name == "current_step" and value < self.first:
            raise ConfigError(
                f"The run {self.found.run.name!r} goes on after {self.first} steps, so its loop has to start at "
                f"self.current_step, which is {self.first}, not at {value}."
            )
        self.moved = self.moved or name == "current_step"
        content = self.found.content if self.found.same_run else {}
        if name == "optimizer" and isinstance(value, Optimizer) and content:
            restore_optimizer(value, None, content, self.changes, own_schedule=False)
        elif name == "scheduler" and isinstance(value, LRScheduler) and content.get("scheduler_state_dict"):
            load_schedule(value, content["scheduler_state_dict"])
            saved = (content.get("optimizer_state_dict") or {}).get("param_groups", ())
            for group, before in zip(value.optimizer.param_groups, saved, strict=False):
                if "lr" not in self.changes:  # making the schedule has set it to that of the first step
                    group.update({key: before[key] for key in ("lr", "initial_lr") if key in before})


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
