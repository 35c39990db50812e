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


def smooth(values: Numbers, weight: float) -> Numbers:
    """Return the bias-corrected exponential moving average.

    After Kingma and Ba, "Adam" (2015), section 3: the average divided by ``1 - weight ** n`` after n values.

    Args:
        values: Finite numbers (rows,).
        weight: The weight of the old average at each value, from 0 to below 1.
    """
    if not weight or len(values) < 2:
        return values
    averaged: Numbers = pl.Series(values).ewm_mean(alpha=1 - weight, adjust=True).to_numpy()
    return averaged


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
