"""Fewer points that look the same: smoothing over all points, and a choice of points that keeps every peak."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tsdownsample import MinMaxLTTBDownsampler

from darkit.dashboard.reading.columns import Numbers

MOST_POINTS = 2_000
_FEWEST_CHOSEN = 3  # what the choice of points by their shape needs at least
_FORGOTTEN = 1e-12  # the weight below which an old point no longer counts


def smooth(values: Numbers, weight: float) -> Numbers:
    """Averages each value with those before it: the exponential moving average, freed of its start's bias.

    After Kingma and Ba, "Adam" (2015), section 3: the average divided by ``1 - weight ** n`` after n values.

    Args:
        values: Finite numbers (rows,).
        weight: How much of the old average stays at each value, from 0 (nothing) to below 1.
    """
    if not weight or len(values) < 2:
        return values
    averaged: Numbers = pl.Series(values).ewm_mean(alpha=1 - weight, adjust=True).to_numpy()
    return averaged


def memory_of(weight: float) -> int:
    """How many values back a smoothed value still depends on, to a part in 1e12."""
    return int(np.ceil(np.log(_FORGOTTEN) / np.log(weight))) if weight > 0 else 0


def pick(x: Numbers, y: Numbers, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Chooses which points to show: the extremes of every stretch, thinned to the most telling, and both ends.

    Args:
        x: Finite positions (rows,), ascending.
        y: Finite values (rows,).
        most: How many points at most, at least 4.

    Returns:
        Ascending row numbers; all of them when there are no more than ``most``.
    """
    if len(y) <= most:
        return np.arange(len(y))
    extremes = np.array([np.argmin(y), np.argmax(y)])
    if most < _FEWEST_CHOSEN + 2:  # too few for a choice by shape
        return np.unique([0, *extremes, len(y) - 1])
    if not (x[1:] > x[:-1]).all():  # the clock stood still or jumped: the order alone counts
        chosen = MinMaxLTTBDownsampler().downsample(np.ascontiguousarray(y), n_out=most - 2)
    else:
        chosen = MinMaxLTTBDownsampler().downsample(np.ascontiguousarray(x), np.ascontiguousarray(y), n_out=most - 2)
    return np.unique(np.concatenate([chosen.astype(np.intp), extremes]))
