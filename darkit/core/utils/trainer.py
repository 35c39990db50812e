"""A learning rate by the number of the step, for loops that set it themselves."""

from __future__ import annotations

import math


def get_lr(
    learning_rate: float,
    decay_lr: bool = False,
    it: int = 1,
    warmup_iters: int = 100,
    lr_decay_iters: int = 1000,
    min_lr: float = 1e-5,
) -> float:
    """Return the learning rate of a step: a linear warm-up, a cosine down to ``min_lr``, and then that.

    Args:
        learning_rate: The peak.
        decay_lr: Whether it changes at all.
        it: The step.
        warmup_iters: Steps of the warm-up.
        lr_decay_iters: The step at which ``min_lr`` is reached.
        min_lr: The lowest rate.
    """
    if not decay_lr:
        return learning_rate
    if it < warmup_iters:
        return learning_rate * it / warmup_iters
    if it >= lr_decay_iters:
        return min_lr
    done = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + (learning_rate - min_lr) * (1 + math.cos(math.pi * done)) / 2
