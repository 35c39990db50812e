"""Which value of a metric is the best: the one rule for commands, reports, the dashboard and checkpoints that are kept.

The run's `mode` decides for the metric that it monitors, the words of its name for any other one. A value that is NaN
or infinite is never the best.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

_LOWER = {
    *("loss", "error", "err", "perplexity", "ppl", "nll", "mse", "mae", "rmse", "wer", "cer", "divergence", "distance"),
}
_HIGHER = {
    *("acc", "accuracy", "f1", "auc", "auroc", "auprc", "score", "precision", "recall", "bleu", "rouge", "reward"),
    *("return", "r2", "psnr", "ssim", "iou", "map", "dice", "mcc", "kappa", "correct"),
}
LOSS = re.compile(r"(?<![a-z])loss", re.IGNORECASE)  # in the name of a metric that is a loss
_BREAKS = re.compile(r"[^a-zA-Z0-9]+|(?<=[a-z])(?=[A-Z][a-z])")


def best_mode(trainer: Mapping[str, Any], *names: str) -> str:
    """Return ``max`` when the largest value of a metric is its best, and ``min`` otherwise.

    Args:
        trainer: The trainer's config, for its `monitor` and `mode`.
        names: What the metric is called: its column, and its series where that has another name.
    """
    return known_mode(trainer, *names) or "min"


def known_mode(trainer: Mapping[str, Any], *names: str) -> str | None:
    """Return ``max`` or ``min`` as `best_mode`; None where nothing says that a high or a low value is better.

    Of a learning rate or a firing rate no value is the best.
    """
    mode = trainer.get("mode")
    if mode in ("min", "max") and trainer.get("monitor") in names:
        return str(mode)
    words = {word for name in names for word in _BREAKS.split(name.replace("mAP", "map"))}
    words = {word.lower() for word in words}
    words |= {word.rstrip("0123456789") for word in words}
    return "min" if words & _LOWER else "max" if words & _HIGHER else None


def is_better(value: float, than: float | None, mode: str) -> bool:
    """Return whether a value is better than the best so far, or than none."""
    if not math.isfinite(value):
        return False
    return than is None or (value > than if mode == "max" else value < than)


def best_value(values: Iterable[float | None], mode: str) -> float | None:
    """Return the best of some values, or None where no one is finite."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return (max if mode == "max" else min)(finite, default=None)
