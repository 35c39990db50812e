"""Which run and which checkpoint a training goes on from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from darkit.engine.config import TrainerConfig
from darkit.errors import ConfigError
from darkit.runs.checkpoints import Checkpoint, find_checkpoint, list_checkpoints, manifest_path
from darkit.runs.names import split_reference
from darkit.runs.run import Run, load

_SET_ASIDE = "superseded"


@dataclass(frozen=True)
class Resume:
    """Where a training goes on from.

    Attributes:
        run: The run that made the checkpoint.
        checkpoint: The checkpoint.
        same_run: Whether that run is continued; otherwise a new run starts from its weights.
    """

    run: Run
    checkpoint: Checkpoint
    same_run: bool

    def set_aside_later(self) -> None:
        """Moves checkpoints of later steps into a folder of their own when the same run goes on from an earlier one."""
        if not self.same_run:
            return
        for later in list_checkpoints(self.run.path):
            if later.step > self.checkpoint.step:
                folder = self.run.path / _SET_ASIDE
                folder.mkdir(exist_ok=True)
                for path in (manifest_path(later.path), later.path):
                    if path.exists():
                        os.replace(path, folder / path.name)


def find_resume(root: Path, config: TrainerConfig, resume: bool | str | None) -> Resume | None:
    """Finds what ``resume`` means, and sets ``config.name`` when the same run goes on.

    Raises:
        ConfigError: It is True, but no run is named.
        RunNotFoundError: There is no such run.
        CheckpointNotFoundError: It has no such checkpoint.
    """
    if not resume:
        return None
    if resume is True and config.name is None:
        raise ConfigError("resume=True goes on with the run called name=, but no name was given.")
    reference = config.name if resume is True else resume
    name, wanted = split_reference(reference)
    run = load(name, root=root)
    same_run = config.name in (None, name)
    if same_run:
        config.name = name
    return Resume(run, find_checkpoint(run.path, wanted), same_run)
