"""Checkpoints without the state of the optimizer, which most of their bytes are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from darkit.engine.checkpoints.archive import write_archive
from darkit.engine.checkpoints.snapshot import ARRAYS
from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.checkpoints import WITHOUT_OPTIMIZER, Checkpoint, manifest_path
from darkit.runs.verify import find_problem

logger = logging.getLogger(__name__)
_HEAVY = ("optimizer_state_dict", "optimizer_states", "raw_state_dict")  # of darkit, of Lightning, of averaged weights
_REMOVED = "optimizer_removed"


def remove_optimizer(checkpoint: Checkpoint) -> None:
    """Replace a checkpoint's file by one that has only what is needed to use its weights.

    At every moment the file is verified by its manifest, which describes both files while the new one takes the place
    of the old one. A damaged checkpoint stays as it is, with a warning, and one without such a state too.

    Raises:
        StorageError: The file system failed; the checkpoint is the old or the new one.
    """
    manifest_file = manifest_path(checkpoint.path)
    manifest = files.read_json(manifest_file)
    if problem := find_problem(checkpoint):
        logger.warning("The checkpoint %s keeps its optimizer state, because it is damaged: %s", checkpoint, problem)
        return
    content = torch.load(checkpoint.path, map_location="cpu", weights_only=True, mmap=True)  # reads only what it copies
    if not any(content.get(key) for key in _HEAVY):
        return
    light = {key: value for key, value in content.items() if key not in _HEAVY}
    if ARRAYS in light:
        light[ARRAYS] = [place for place in light[ARRAYS] if place[0] not in _HEAVY]
    light[_REMOVED] = True

    def describe_both(size: int, sha256: str) -> None:
        files.write_json(manifest_file, manifest | {WITHOUT_OPTIMIZER: {"size": size, "sha256": sha256}})

    size, sha256 = write_archive(checkpoint.path, light, prepare=describe_both)
    new = {"size": size, "sha256": sha256}
    files.write_json(manifest_file, manifest | new | {WITHOUT_OPTIMIZER: new})


def refuse_without_optimizer(run: str, checkpoint: Checkpoint, content: Mapping[str, Any]) -> None:
    """Refuse to resume a run exactly from a checkpoint that has only weights. Raises `ConfigError`."""
    if content.get(_REMOVED):
        raise ConfigError(
            f"The checkpoint {checkpoint.name} of the run {run!r} has lost its optimizer state "
            "(keep_optimizer='last'), so the run cannot be resumed from it: resume from the latest one, or give "
            "another name= to start a new run from its weights."
        )


def with_optimizer(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return content that has got an optimizer state again."""
    return {key: value for key, value in content.items() if key != _REMOVED}
