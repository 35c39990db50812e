"""Successive halving and hyperband: which trials train up to which step, and which of them are promoted.

A bracket is a group of trials with rungs, the steps at which they are compared. All trials of a bracket reach its first
rung; of every ``factor`` the best one is promoted to the next, until the last rung, which is the end of the training.
Halving has one bracket; hyperband (Li et al. 2018, https://arxiv.org/abs/1603.06560) has one for each first rung, so
that slow starters have a chance too. Everything is decided by the values at the rungs, never by which came first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from darkit.errors import ConfigError
from darkit.sweep.settings import SweepSettings


@dataclass(frozen=True)
class Bracket:
    """Trials with the same rungs.

    Attributes:
        numbers: The numbers of its trials.
        rungs: The steps at which they are compared; the last one is the end of the training, None where that is not
            known before.
    """

    numbers: range
    rungs: tuple[int | None, ...]


def make_plan(settings: SweepSettings, trials: int, max_step: int, interval: int) -> list[Bracket]:
    """Return the brackets of a sweep.

    Args:
        settings: The pruner, its factor and first step.
        trials: Number of trials of all brackets.
        max_step: The last step of a trial that is never paused.
        interval: Steps between values of the objective; a rung is at a multiple of it.

    Raises:
        ConfigError: The steps leave no room for a rung.
    """
    if settings.pruner not in ("halving", "hyperband"):
        return [Bracket(range(trials), (None,))]
    ladder = rungs_of(settings, max_step, interval)
    if settings.pruner == "halving":
        useful = 1 + int(math.log(trials, settings.factor) + 1e-9)  # further rungs would compare a single trial
        return [Bracket(range(trials), tuple(ladder[-useful:]))]
    brackets = [ladder[start:] for start in range(len(ladder))]
    # as many steps for each bracket: one with many rungs begins with more trials
    shares = [settings.factor ** (len(rungs) - 1) / len(rungs) for rungs in brackets]
    sizes = [int(trials * share / sum(shares)) for share in shares]
    for extra in range(trials - sum(sizes)):
        sizes[extra % len(sizes)] += 1
    first, plan = 0, []
    for rungs, size in zip(brackets, sizes, strict=True):
        if size:
            plan.append(Bracket(range(first, first + size), tuple(rungs)))
        first += size
    return plan


def rungs_of(settings: SweepSettings, max_step: int, interval: int) -> list[int]:
    """Return all steps at which trials may be compared, lowest first, the last one being ``max_step``.

    Raises:
        ConfigError: Not one of them is before the end.
    """
    least = max(settings.min_step or 0, interval, 1)
    if settings.min_step is None:
        least = max(least, max_step // settings.factor**3)
    steps, step = [max_step], max_step / settings.factor
    while step >= least - 1e-9:
        rung = math.ceil(round(step / interval, 6)) * interval
        if rung < steps[0]:
            steps.insert(0, rung)
        step /= settings.factor
    if len(steps) == 1:
        raise ConfigError(
            f"sweep.pruner={settings.pruner} finds no step to compare trials at: the objective has a value every "
            f"{interval} steps of {max_step}, and the first rung must be at step {least} or later. Give a smaller "
            "trainer.eval_step_interval or sweep.min_step, or more steps."
        )
    return steps


def promote(values: Mapping[int, float], factor: int, direction: str) -> tuple[list[int], list[int]]:
    """Return the trials that are promoted, the best of every ``factor`` and at least one, and the others.

    A trial without a finite value is never promoted; of equal ones the earlier trial is.
    """
    sound = [number for number, value in values.items() if math.isfinite(value)]
    sign = -1 if direction == "max" else 1
    ranked = sorted(sound, key=lambda number: (sign * values[number], number))
    kept = sorted(ranked[: max(1, len(values) // factor)])
    return kept, sorted(values.keys() - {*kept})
