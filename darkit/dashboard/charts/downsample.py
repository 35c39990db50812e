"""Fewer points that look the same: smoothing over all points, and downsampling that keeps every peak."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tsdownsample import MinMaxLTTBDownsampler

from darkit.dashboard.reading.columns import Numbers

MOST_POINTS = 2_000
_FEWEST_CHOSEN = 3  # the minimum of the downsampler
_FORGOTTEN = 1e-12  # the weight below which an old point no longer counts
_LAST_STEPS = 10_000


def smooth(values: Numbers, weight: float, steps: Numbers | None = None, spacing: float = 1.0) -> Numbers:
    """Return the bias-corrected exponential moving average, in which a value weighs by how many steps ago it was.

    After Kingma and Ba, "Adam" (2015), section 3: the average divided by the sum of its weights. A value of step s has
    the weight ``weight ** ((step - s) / spacing)`` at a later step, so that curves logged at other intervals, or with
    gaps, are smoothed alike.

    Args:
        values: Finite numbers (rows,).
        weight: The weight of the old average at each value, from 0 to below 1.
        steps: The steps of the values (rows,), ascending; by default one ``spacing`` after the other.
        spacing: The number of steps over which the old average keeps ``weight``.
    """
    if not weight or len(values) < 2:
        return values
    ages = np.ones(len(values) - 1)
    if steps is not None and spacing > 0:
        ages = np.nan_to_num(np.maximum(np.diff(steps), 0) / spacing, nan=1.0)  # a row without a step
    if (ages == ages[0]).all() and ages[0] > 0:
        averaged: Numbers = pl.Series(values).ewm_mean(alpha=1 - weight ** float(ages[0]), adjust=True).to_numpy()
        return averaged
    kept = np.concatenate([[0.0], weight**ages])
    sums = _running(np.stack([values, np.ones(len(values))]), kept)
    quotient: Numbers = sums[0] / sums[1]
    return quotient


def _running(values: Numbers, kept: Numbers) -> Numbers:
    """Return sums (2, rows) of values (2, rows), of each of which the share ``kept`` (rows,) stays at the next one.

    It joins ever longer stretches: those of 1, 2, 4, ... rows, until what is older than them is forgotten.
    """
    sums, share, length = values.astype(float), kept.copy(), 1
    while length < len(share) and share.max() > _FORGOTTEN:
        sums[:, length:] += share[length:] * sums[:, :-length]
        share[length:] = share[length:] * share[:-length]
        length *= 2
    return sums


def spacing_of(steps: Numbers) -> float:
    """Return the usual distance of the last steps (rows,); 0 without two of them."""
    known = steps[-_LAST_STEPS:]
    known = known[np.isfinite(known)]
    return float(np.median(np.diff(known))) if len(known) > 1 else 0.0


def memory_of(weight: float) -> int:
    """Return how many earlier values a smoothed value depends on, to a part in 1e12."""
    return int(np.ceil(np.log(_FORGOTTEN) / np.log(weight))) if weight > 0 else 0


def pick(x: Numbers, y: Numbers, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Choose the points to show: the extremes of every stretch, thinned by shape, and both ends.

    Args:
        x: Finite positions (rows,), ascending.
        y: Finite values (rows,).
        most: The maximum number of points, at least 4.

    Returns:
        Ascending row numbers; all of them if there are at most ``most``.
    """
    if len(y) <= most:
        return np.arange(len(y))
    extremes = np.array([np.argmin(y), np.argmax(y)])
    if most < _FEWEST_CHOSEN + 2:  # too few for the downsampler
        return np.unique([0, *extremes, len(y) - 1])
    if not (x[1:] > x[:-1]).all():  # the clock stood still or jumped: only the order counts
        chosen = MinMaxLTTBDownsampler().downsample(np.ascontiguousarray(y), n_out=most - 2)
    else:
        chosen = MinMaxLTTBDownsampler().downsample(np.ascontiguousarray(x), np.ascontiguousarray(y), n_out=most - 2)
    return np.unique(np.concatenate([chosen.astype(np.intp), extremes]))
