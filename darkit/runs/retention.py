"""Which checkpoints of a run are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.best import is_better
from darkit.runs.checkpoints import Checkpoint, manifest_path
from darkit.runs.sharded import remove_folder


@dataclass(frozen=True)
class Retention:
    """The rule for which checkpoints are kept; the highest step always is.

    A checkpoint whose metrics lack `monitor` cannot be compared and is not deleted for that: it is kept until `last`
    says otherwise and another one has a score.

    Args:
        last: How many of the highest steps, at least 1; None keeps all or, where `best` is given, the last one and
            those without a score.
        best: How many of the best besides.
        monitor: The metric by which they are the best.
        mode: ``min`` or ``max``: whether a small or a large value is good.
        optimizer: Which of them keep the state of the optimizer: ``all``, or only the ``last`` one.
        every: Count only multiples of so many steps towards `last`; 0 counts all. Others depend on when a training was
            stopped.

    Raises:
        ConfigError: A value is out of its range.
    """

    last: int | None = None
    best: int = 0
    monitor: str = "val_loss"
    mode: str = "min"
    optimizer: str = "all"
    every: int = 0

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise ConfigError(f"keep_last must be at least 1, or None for all, not {self.last}.")
        if self.best < 0:
            raise ConfigError(f"keep_best must be at least 0, not {self.best}.")
        if self.mode not in ("min", "max"):
            raise ConfigError(f"mode must be one of min, max, not {self.mode!r}.")
        if self.optimizer not in ("all", "last"):
            raise ConfigError(f"keep_optimizer must be one of all, last, not {self.optimizer!r}.")

    def superseded(self, checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
        """Return those that are not kept, lowest step first."""
        ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
        if self.last is None and not self.best:
            return []
        whole = [checkpoint for checkpoint in ordered if not checkpoint.problem]  # a damaged one takes no one's place
        counted = [checkpoint for checkpoint in whole if not self.every or checkpoint.step % self.every == 0]
        kept = {checkpoint.step for checkpoint in [*counted[-(self.last or 1) :], *whole[-1:]]}
        ranked = self.ranked(whole)
        kept |= {checkpoint.step for checkpoint in ranked[: self.best]}
        if self.best and (self.last is None or not ranked):
            kept |= {checkpoint.step for checkpoint in whole if self.monitor not in checkpoint.metrics}
        return [checkpoint for checkpoint in ordered if checkpoint.step not in kept]

    def too_heavy(self, checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
        """Return those that lose the state of the optimizer, lowest step first: verified files before the highest step.

        The highest step counts only if it is verified; otherwise all stay as they are.
        """
        ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
        if self.optimizer == "all" or not ordered or not ordered[-1].verified:
            return []
        return [one for one in ordered[:-1] if one.verified and one.has_optimizer and not one.is_folder]

    def ranked(self, checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
        """Return those with a finite score, best first; of equal ones the lowest step first."""
        sign = 1 if self.mode == "min" else -1
        scored = [
            (sign * value, checkpoint.step, checkpoint)
            for checkpoint in checkpoints
            if (value := checkpoint.metrics.get(self.monitor)) is not None and is_better(value, None, self.mode)
        ]
        return [checkpoint for _, _, checkpoint in sorted(scored, key=lambda item: item[:2])]


def remove_files(checkpoint: Path) -> None:
    """Delete a checkpoint, its manifest first: a crash in between leaves an unverified one, no empty promise.

    Raises:
        StorageError: The file system refused.
    """
    files.remove(manifest_path(checkpoint))
    if checkpoint.is_dir() and not checkpoint.is_symlink():
        remove_folder(checkpoint)
    else:
        files.remove(checkpoint)
