"""The objective of a run: the one number that a sweep compares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars

from darkit.errors import ObjectiveMissingError, nearest
from darkit.runs import Run
from darkit.runs.best import best_mode, best_value

FALLBACK = "train_loss"  # the objective of a run without validation


def objective_name(objective: str | None, trainer: Mapping[str, Any]) -> str:
    """Return the metric that a sweep compares: the one asked for, or the trainer's `monitor`."""
    return objective or str(trainer.get("monitor") or "val_loss")


def direction_of(direction: str, objective: str | None, trainer: Mapping[str, Any]) -> str:
    """Return ``min`` or ``max``: the one asked for or, for ``auto``, what the metric implies."""
    return direction if direction in ("min", "max") else best_mode(trainer, objective_name(objective, trainer))


def value_of(run: Run, objective: str | None = None, direction: str = "auto", *, until: int | None = None) -> float:
    """Return the objective of a run.

    It is the best value of the metric up to the step ``until``. Without ``objective`` the metric is the run's
    `monitor`; in a run that has no such column, because it has no validation, it is the last ``train_loss``.

    Args:
        run: The run.
        objective: The metric, a column of the log; None means the `monitor`.
        direction: ``min``, ``max``, or ``auto`` for what the metric implies.
        until: The last step that counts; None counts all.

    Returns:
        The value; NaN where the metric was never finite.

    Raises:
        ObjectiveMissingError: The log has no such column.
    """
    trainer = run.trainer_config
    name = objective_name(objective, trainer)
    log = run.log()
    if until is not None and "step" in log.columns:
        log = log.filter(polars.col("step") <= until)
    mode = direction_of(direction, objective, trainer)
    best = best_value(_numbers(log, name), mode)
    if best is not None:
        return best
    if not _numbers(log, name) and objective is None and (values := _numbers(log, FALLBACK)):
        return values[-1]
    if name not in log.columns:
        raise ObjectiveMissingError(
            f"The run {run.name!r} has no column {name!r}, which is the objective of the sweep. "
            f"{nearest(name, log.columns)}."
        )
    return math.nan


def values_by_step(run: Run, objective: str | None = None) -> dict[int, float]:
    """Return every value of a run's objective by its step, for a pruner that compares steps."""
    log = run.log()
    name = objective_name(objective, run.trainer_config)
    if name not in log.columns or "step" not in log.columns:
        return {}
    rows = log.select("step", name).drop_nulls().iter_rows()
    return {int(step): float(value) for step, value in rows}


def _numbers(log: polars.DataFrame, name: str) -> list[float]:
    if name not in log.columns or not log[name].dtype.is_numeric():
        return []
    return [float(value) for value in log[name].drop_nulls()]
