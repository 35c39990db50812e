"""Which value of a series is its best: the one rule for the command line and the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HIGHER_IS_BETTER = (
    "acc", "accuracy", "f1", "auc", "score", "precision", "recall", "bleu", "rouge", "reward", "return", "r2", "psnr",
    "ssim", "iou", "map", "correct",
)  # fmt: skip


def higher_is_better(name: str, trainer: Mapping[str, Any]) -> bool:
    """Says whether a series' largest value is its best: by the run's monitor, else by what its name means."""
    if trainer.get("monitor") == name and trainer.get("mode") in ("min", "max"):
        return bool(trainer["mode"] == "max")
    words = name.lower().replace("-", "_").replace("/", "_").replace(".", "_").split("_")
    return any(word in _HIGHER_IS_BETTER for word in words) and "loss" not in words
