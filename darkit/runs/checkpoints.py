"""The checkpoints of a run: their names, their manifests, and which one is meant. Reading only; no torch.

A checkpoint is ``iter-<step>-ckpt.pth``; its manifest ``iter-<step>-ckpt.json`` is written after it, with its size in
bytes, its sha256, the step, the metrics of that step and the run's id. A checkpoint without a manifest is unverified,
not lost.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from darkit.errors import CheckpointNotFoundError, nearest
from darkit.runs import files

logger = logging.getLogger(__name__)
_NAME = re.compile(r"iter-(\d+)-ckpt\.pth")


@dataclass(frozen=True)
class Checkpoint:
    """One saved step of a run.

    Attributes:
        step: The step it was saved at.
        path: Its file.
        size: Size in bytes.
        sha256: The digest its manifest tells, or empty without a manifest.
        metrics: The values logged at the same step.
        problem: Why the file cannot be trusted, or empty.
    """

    step: int
    path: Path
    size: int
    sha256: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def name(self) -> str:
        """The name without ending, such as ``iter-400-ckpt``."""
        return self.path.stem


def checkpoint_path(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of a step belongs."""
    return folder / f"iter-{step}-ckpt.pth"


def manifest_path(checkpoint: Path) -> Path:
    """Returns where the manifest of a checkpoint file belongs."""
    return checkpoint.with_suffix(".json")


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Returns the checkpoints in a run directory, lowest step first."""
    found = []
    for path in folder.glob("iter-*-ckpt.pth"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(_read(path, int(match[1])))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Returns the checkpoint with the highest step that can be trusted, or None; says which ones it had to skip."""
    for checkpoint in reversed(list_checkpoints(folder)):
        if not checkpoint.problem:
            return checkpoint
        logger.warning("Skipped %s of run %r: %s", checkpoint.name, folder.name, checkpoint.problem)
    return None


def find_checkpoint(folder: Path, wanted: str | int | None = None) -> Checkpoint:
    """Finds the checkpoint that is meant.

    Args:
        folder: The run directory.
        wanted: ``iter-400-ckpt``, with or without ``.pth``; ``400``; or None or ``latest`` for the highest step that
            can be trusted.

    Raises:
        CheckpointNotFoundError: There is none of that name; the text lists what there is.
    """
    if wanted in (None, "latest"):
        latest = latest_checkpoint(folder)
        if latest is None:
            raise CheckpointNotFoundError(f"The run {folder.name!r} has no checkpoint yet.")
        return latest
    text = str(wanted).removesuffix(".pth")
    name = f"iter-{int(text)}-ckpt" if text.isdecimal() else text
    existing = list_checkpoints(folder)
    for checkpoint in existing:
        if checkpoint.name == name:
            return checkpoint
    names = [checkpoint.name for checkpoint in existing]
    raise CheckpointNotFoundError(f"The run {folder.name!r} has no checkpoint {wanted!r}; {nearest(name, names)}.")


def _read(path: Path, step: int) -> Checkpoint:
    size = path.stat().st_size
    manifest = files.read_json(manifest_path(path))
    expected = manifest.get("size", size)
    problem = "" if size == expected else f"it has {size} bytes where its manifest says {expected}"
    return Checkpoint(step, path, size, manifest.get("sha256", ""), manifest.get("metrics", {}), problem)
