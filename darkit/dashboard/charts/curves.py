"""From the columns of a log to curves: x, y, non-finite values, and the shown range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darkit.dashboard.charts.downsample import MOST_POINTS, pick, smooth, spacing_of
from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.reading.sessions import Resumption, active_clock
from darkit.dashboard.reading.tail import Table
from darkit.dashboard.view import View
from darkit.runs.statistics import t_critical

MOST_ODD = 300  # marks of NaN and infinity per curve on the screen
_TIME = "time"
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Curve:
    """One series of one run.

    Attributes:
        x: Positions (points,): steps, epochs, seconds or Unix milliseconds.
        y: Finite values (points,).
        odd_x: Positions of NaN and infinite values (marks,).
        odd_y: These values (marks,).
        at: The steps of the points (points,), by which smoothing weighs them; None where they are the positions.
    """

    x: Numbers
    y: Numbers
    odd_x: Numbers
    odd_y: Numbers
    at: Numbers | None = None

    @property
    def steps(self) -> Numbers:
        """The steps of the points (points,)."""
        return self.x if self.at is None else self.at

    def within(self, low: float | None, high: float | None) -> Curve:
        """Return the part between two positions, and one more point on each side so that lines reach the edge."""
        if low is None or high is None:
            return self
        inside = np.flatnonzero((self.x >= low) & (self.x <= high))
        if len(inside):
            part = slice(max(0, inside[0] - 1), inside[-1] + 2)
        else:
            after = int(np.searchsorted(self.x, low))
            part = slice(max(0, after - 1), after + 1)
        marks = (self.odd_x >= low) & (self.odd_x <= high)
        return Curve(self.x[part], self.y[part], self.odd_x[marks], self.odd_y[marks])

    def smoothed(self, weight: float, spacing: float | None = None) -> Curve:
        """Return the same curve, smoothed over all its points; the weight is that of one of its steps, or `spacing`."""
        spacing = spacing_of(self.steps) if spacing is None else spacing
        return Curve(self.x, smooth(self.y, weight, self.steps, spacing), self.odd_x, self.odd_y)

    def thinned(self, most: int = MOST_POINTS) -> Curve:
        """Return at most ``most`` points that look like all of them."""
        chosen = pick(self.x, self.y, most)
        marks = np.unique(np.linspace(0, max(0, len(self.odd_x) - 1), MOST_ODD).astype(int))
        few = len(self.odd_x) <= MOST_ODD
        odd_x, odd_y = (self.odd_x, self.odd_y) if few else (self.odd_x[marks], self.odd_y[marks])
        return Curve(self.x[chosen], self.y[chosen], odd_x, odd_y)


EMPTY = Curve(*(np.empty(0) for _ in range(4)))


def curve_of(
    table: Table, columns: Sequence[str], view: View, first: int = 0, resumed: Sequence[Resumption] = ()
) -> Curve:
    """Return the curve of a series, given by its x and y column, from a row on; empty if the log lacks them."""
    y = table.column(columns[1], first)
    x = position_of(table, columns[0], view, first, resumed)
    if x is None or y is None:
        return EMPTY
    position = view.x or (columns[0] if view.axis == "step" else view.axis)
    known = np.isfinite(x)
    shown = known & np.isfinite(y)
    at = None if position == "step" else table.column("step", first)
    if shown.all():
        return Curve(x, y, np.empty(0), np.empty(0), at)
    odd = table.odd(columns[1], first) & known
    return Curve(x[shown], y[shown], x[odd], y[odd], at[shown] if at is not None else None)


def position_of(
    table: Table, column: str, view: View, first: int = 0, resumed: Sequence[Resumption] = ()
) -> Numbers | None:
    """Return x of every row from ``first`` on, as the view asks, or None if the log lacks the column.

    Seconds since the start do not count the pauses before a run was ``resumed``. The clock is the reader's, for all
    of a run as at its start: an hour that comes twice would send its curve back.
    """
    if view.x:
        return table.column(view.x, first)
    if view.axis in ("relative", "wall"):
        clock = table.column(_TIME, first if view.axis == "wall" else 0)
        if clock is None or not len(clock):
            return clock
        if view.axis == "wall":
            wall: Numbers = clock * 1000 + clock_offset(table, view)
            return wall
        clock = active_clock(clock, resumed)
        known = clock[np.isfinite(clock)]
        since: Numbers = clock - (known[0] if len(known) else 0.0)
        return since[first:]
    if view.axis == "epoch":
        return table.column("epoch", first)
    own = table.column(column, first)
    return own if own is not None else table.column("step", first)


def clock_offset(table: Table, view: View) -> float:
    """Return by how many milliseconds the reader's clock was before UTC when a run started."""
    started = table.start(_TIME)
    return 60_000 * (view.offset if started is None else view.offset_at(started))


@dataclass(frozen=True)
class Band:
    """Several runs as one.

    Attributes:
        x: Positions (points,).
        mean: The mean of the curves there (points,).
        margin: Their standard deviation, or half of the confidence interval of the mean (points,).
    """

    x: Numbers
    mean: Numbers
    margin: Numbers


@np.errstate(over="ignore", invalid="ignore")  # of the largest numbers
def band_of(curves: Sequence[Curve], most: int = MOST_POINTS, spread: str = "std") -> Band:
    """Average curves, each interpolated linearly within its range.

    Args:
        curves: The curves.
        most: The maximum number of points.
        spread: ``std`` or ``ci``, as in `View`. Where there is only one curve, the margin is 0.
    """
    filled = [curve for curve in curves if len(curve.x)]
    if not filled:
        return Band(*(np.empty(0) for _ in range(3)))
    first = filled[0].x
    if all(len(curve.x) == len(first) and np.array_equal(curve.x, first) for curve in filled):
        grid, rows = first, np.stack([curve.y for curve in filled])
    else:
        grid = np.unique(np.concatenate([curve.x for curve in filled]))
        if len(grid) > most:
            grid = np.linspace(grid[0], grid[-1], most)
        rows = np.stack([np.interp(grid, *_ascending(curve), left=np.nan, right=np.nan) for curve in filled])
    known = np.isfinite(rows)
    count = known.sum(axis=0)
    any_known = count > 0
    rows, known, count, grid = rows[:, any_known], known[:, any_known], count[any_known], grid[any_known]
    low, high = np.where(known, rows, np.inf).min(axis=0), np.where(known, rows, -np.inf).max(axis=0)
    mean = np.clip(np.where(known, rows, 0).sum(axis=0) / count, low, high)  # of equal values it may be rounded
    margin = np.sqrt((np.where(known, rows - mean, 0) ** 2).sum(axis=0) / np.maximum(1, count - 1))
    if spread == "ci":
        margin = margin * _interval(count)
    shown = pick(grid, mean, most)
    return Band(grid[shown], mean[shown], margin[shown])


def _interval(counts: Numbers) -> Numbers:
    """Return half of the confidence interval of a mean in standard deviations, for each number of values (points,)."""
    numbers, places = np.unique(counts, return_inverse=True)
    halves = [t_critical(1 - _CONFIDENCE, n - 1) / n**0.5 if n > 1 else 0.0 for n in numbers.tolist()]
    return np.asarray(halves)[places]


def odd_of(curves: Sequence[Curve]) -> Curve:
    """Return the non-finite values of several curves as a curve without points."""
    together = Curve(
        np.empty(0),
        np.empty(0),
        np.concatenate([np.empty(0), *(curve.odd_x for curve in curves)]),
        np.concatenate([np.empty(0), *(curve.odd_y for curve in curves)]),
    )
    return together.thinned()


def _ascending(curve: Curve) -> tuple[Numbers, Numbers]:
    order = np.argsort(curve.x, kind="stable")
    return curve.x[order], curve.y[order]
