"""What a trainer's own ``_save_model`` saves: kept in the run's checkpoint, in the way in which all are written."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from darkit.errors import CheckpointUnreadableError
from darkit.runs import files
from darkit.runs.checkpoints import checkpoint_path, step_of

STAGING = "_staging"
"""Attribute of a trainer with the folder, and the content that darkit saves, while its ``_save_model`` runs."""
_DARKITS = ("current_step", "model_class")  # entries that are never a trainer's own: resuming depends on them


def staged(save_model: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the ``_save_model`` of a trainer's class: called by a loop, it saves a checkpoint as darkit does."""

    @functools.wraps(save_model)
    def save(self: Any, checkpoint: str = "complete") -> Any:
        if STAGING in vars(self):
            return save_model(self, checkpoint)
        return self.save_pretrained(checkpoint)

    return save


def with_own(trainer: Any, folder: Path, step: int, content: Mapping[str, Any]) -> dict[str, Any]:
    """Call the trainer's own ``_save_model``, and put what it saves into the content of a checkpoint.

    While it runs, ``save_directory`` is a temporary folder in the run directory: no file is ever half there. What else
    it writes is moved into the run directory, but for files of darkit's names.

    Args:
        trainer: The trainer.
        folder: The run directory.
        step: The step.
        content: What darkit saves.

    Returns:
        The content with the entries that it saved.

    Raises:
        CheckpointUnreadableError: It saved what cannot be read without running code.
    """
    name = checkpoint_path(folder, step)
    staging = folder / f".{name.stem}.tmp-{os.getpid()}-{os.urandom(6).hex()}"
    staging.mkdir()
    vars(trainer)[STAGING] = staging, content
    try:
        trainer._save_model(name.stem)
        own = _read(trainer, staging / name.name)
        (staging / name.name).unlink(missing_ok=True)
        for path in sorted(staging.iterdir()):
            if not _is_darkits(path):
                _move(path, folder / path.name)
    finally:
        del vars(trainer)[STAGING]
        shutil.rmtree(staging, ignore_errors=True)
    return {**content, **{key: value for key, value in own.items() if key not in _DARKITS}}


def _read(trainer: Any, path: Path) -> dict[str, Any]:
    if not path.exists():  # it saved elsewhere, or in another process
        return {}
    try:
        found = torch.load(path, weights_only=True)
    except Exception as error:
        raise CheckpointUnreadableError(
            f"{type(trainer).__name__}._save_model() saves what cannot be read without running code: save only "
            "tensors, numbers, text, lists and dicts."
        ) from error
    if not isinstance(found, dict):
        raise CheckpointUnreadableError(
            f"{type(trainer).__name__}._save_model() must save a dict with 'state_dict', not a {type(found).__name__}."
        )
    return found


def _is_darkits(path: Path) -> bool:
    """Return whether a run directory has a file of this name of darkit's: a checkpoint and its manifest among them."""
    return path.suffix in ("", ".pth", ".json") if step_of(path.stem) is not None else files.is_own(path.name)


def _move(path: Path, target: Path) -> None:
    if path.is_dir() and target.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
    else:
        os.replace(path, target)
