"""The checkpoints of a run: their names, their manifests, and which one is meant. Reading only; no torch.

A checkpoint is ``iter-<step>-ckpt.pth`` or, of a model that several processes hold in parts, the folder
``iter-<step>-ckpt`` (`darkit.runs.sharded`); its manifest ``iter-<step>-ckpt.json`` is written after it, with its size
in bytes, its sha256, the step, the metrics of that step and the run's id. A file without a manifest is unverified, not
lost; a folder without one was not completed.
"""

from __future__ import annotations

import logging
import math
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.errors import CheckpointNotFoundError, listing, nearest
from darkit.runs import files, sharded
from darkit.runs.inert import inert
from darkit.runs.lock import is_locked

logger = logging.getLogger(__name__)
WITHOUT_OPTIMIZER = "without_optimizer"
"""Entry of a manifest: size and sha256 of the file without the state of the optimizer, before it takes its place."""
COMPLETE = "complete"
"""DarwinKit's name of the checkpoint of a complete training: the last one."""
_SHORT = re.compile(r"iter-[0-9]{1,19}")
_NAME = re.compile(r"iter-(0|[1-9][0-9]*)-ckpt(\.pth)?")
_DIGITS = 16  # of a step: beyond, numbers in JSON are no longer exact


@dataclass(frozen=True)
class Checkpoint:
    """One saved step of a run.

    Attributes:
        step: The step it was saved at.
        path: Its file or folder.
        size: Size in bytes.
        sha256: The digest in its manifest, or empty without a manifest.
        metrics: The values logged at the same step.
        problem: Why it cannot be trusted, or empty.
        is_folder: Whether it is a folder, with the parts of a model that several processes held.
        has_optimizer: Whether a training can be resumed from it exactly; with ``keep_optimizer="last"``, older ones
            have only weights.
    """

    step: int
    path: Path
    size: int
    sha256: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    is_folder: bool = False
    has_optimizer: bool = True

    def __str__(self) -> str:
        """Return the path, as messages and people need it."""
        return str(self.path)

    def __fspath__(self) -> str:
        """Return the path, so that, of a file, ``torch.load(checkpoint)`` and ``open(checkpoint, "rb")`` work."""
        return str(self.path)

    @property
    def name(self) -> str:
        """The name without ending, such as ``iter-400-ckpt``."""
        return self.path.stem

    @property
    def verified(self) -> bool:
        """Whether it has a manifest, and the size that the manifest says."""
        return bool(self.sha256) and not self.problem


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint file of a step belongs."""
    return folder / f"iter-{step}-ckpt.pth"


def folder_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint folder of a step belongs."""
    return folder / f"iter-{step}-ckpt"


def manifest_path(checkpoint: Path) -> Path:
    """Return where the manifest of a checkpoint file or folder belongs."""
    return checkpoint.with_suffix(".json")


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a run directory, lowest step first."""
    found = (_describe_step(folder, step) for step in checkpoint_steps(folder))
    return [checkpoint for checkpoint in found if checkpoint is not None]


def _describe_step(folder: Path, step: int) -> Checkpoint | None:
    """Return the checkpoint of a step: the file or, if that does not fit the manifest, the folder."""
    file = describe_checkpoint(checkpoint_path(folder, step), step)
    if file is not None and not file.problem:
        return file
    parts = describe_checkpoint(folder_path(folder, step), step)
    return parts if parts is not None and (file is None or not parts.problem) else file


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a run directory, lowest first, without a look into any."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(("-ckpt.pth", "-ckpt"))]
    except OSError:
        return []
    return sorted({int(match[1]) for match in map(_NAME.fullmatch, names) if match})


def step_of(name: str) -> int | None:
    """Return the step of the checkpoint that has a name, or None for a name of another form."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and len(match[1]) < _DIGITS else None


def candidates(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints that a training can resume from, best first.

    Those whose size is the one in their manifest come first, the highest step before the others; then those without a
    manifest. What stands higher than the first and is not it is logged as skipped.
    """
    existing = list_checkpoints(folder)[::-1]
    usable = [checkpoint for checkpoint in existing if not checkpoint.problem]
    ordered = sorted(usable, key=lambda checkpoint: not checkpoint.verified)  # stable: the steps keep their order
    best = ordered[0].step if ordered else -1
    for checkpoint in existing:
        if checkpoint.step > best and (checkpoint.problem or not is_locked(folder)):  # a trainer may be writing it
            tell_skipped(checkpoint, checkpoint.problem or "it has no manifest, so nothing vouches for it")
    return ordered


def tell_skipped(checkpoint: Checkpoint, problem: str) -> None:
    """Log that a checkpoint was passed over, and why."""
    logger.warning("Skipped %s of run %r: %s", checkpoint.name, checkpoint.path.parent.name, problem)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint with the highest step that can be trusted, or None; says which ones it had to skip.

    One without a manifest is taken only where none has one.
    """
    return next(iter(candidates(folder)), None)


def find_checkpoint(folder: Path, wanted: str | int | None = None) -> Checkpoint:
    """Find the requested checkpoint.

    Args:
        folder: The run directory.
        wanted: ``iter-400-ckpt``, with or without ``.pth``; ``iter-400``; ``400``; or None or ``latest`` for the
            highest step that can be trusted.

    Raises:
        CheckpointNotFoundError: There is none of that name; the text lists what there is.
    """
    if wanted in (None, "latest"):
        latest = latest_checkpoint(folder)
        if latest is None:
            raise CheckpointNotFoundError(f"The run {folder.name!r} has no checkpoint yet.")
        return latest
    text = str(wanted).removesuffix(".pth")
    if _SHORT.fullmatch(text):
        text = text.removeprefix("iter-")
    name = f"iter-{int(text)}-ckpt" if text.isascii() and text.isdecimal() and len(text) < 20 else text
    existing = list_checkpoints(folder)
    for checkpoint in existing:
        if checkpoint.name == name:
            return checkpoint
    raise CheckpointNotFoundError(
        f"The run {folder.name!r} has no checkpoint {wanted!r}. {_what_there_is(name, existing)}."
    )


def _what_there_is(name: str, existing: list[Checkpoint]) -> str:
    match = _NAME.fullmatch(name)
    if not match or not existing:
        return nearest(name, [checkpoint.name for checkpoint in existing])
    step = int(match[1])
    closest = sorted(existing, key=lambda checkpoint: (abs(checkpoint.step - step), checkpoint.step))
    return f"Available, nearest first: {listing([checkpoint.name for checkpoint in closest])}"


def describe_checkpoint(path: Path, step: int = 0) -> Checkpoint | None:
    """Return what size and manifest tell of a checkpoint; None if it is none, or was deleted since."""
    try:
        found = path.lstat()
    except OSError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return Checkpoint(step, path, found.st_size, problem="it is a link, which is not followed")
    manifest = files.read_json(manifest_path(path))
    if stat.S_ISDIR(found.st_mode) and path.suffix != ".pth":
        size, problem = sharded.describe_folder(path, manifest)
        digest = manifest.get("sha256") if not problem else ""
        return Checkpoint(step, path, size, str(digest), _metrics(manifest), problem, is_folder=True)
    if not stat.S_ISREG(found.st_mode):
        return None
    size, lighter = found.st_size, manifest.get(WITHOUT_OPTIMIZER)
    if isinstance(lighter, dict) and lighter.get("size") == size:
        described, has_optimizer = lighter, False
    else:
        described, has_optimizer = manifest, True
    digest, expected = described.get("sha256"), described.get("size", size)
    problem = "" if size == expected else f"it has {size} bytes where its manifest says {inert(expected)[:40]}"
    digest = digest if isinstance(digest, str) else ""
    return Checkpoint(step, path, size, digest, _metrics(manifest), problem, has_optimizer=has_optimizer)


def _metrics(manifest: dict[str, Any]) -> dict[str, float]:
    """Return the numbers among a manifest's metrics; what JSON calls null was NaN."""
    metrics = manifest.get("metrics")
    if not isinstance(metrics, dict):
        return {}
    return {
        name: math.nan if value is None else _as_float(value)
        for name, value in metrics.items()
        if value is None or isinstance(value, int | float)
    }


def _as_float(value: float) -> float:
    """Return a number, infinite where it is whole and larger than a float holds."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
