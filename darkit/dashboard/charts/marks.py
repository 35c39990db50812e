"""Marks at the bottom of a chart: checkpoints, where a run was resumed, and where its loss was lost."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from darkit.dashboard.charts.curves import Curve, position_of
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.columns import Flags, Numbers
from darkit.dashboard.reading.series import declared_series, loss_of
from darkit.dashboard.texts import text
from darkit.dashboard.view import View
from darkit.runs.checkpoints import checkpoint_steps

_MOST = 60  # checkpoints per curve on the screen; a zoom shows the others
Marks = tuple[tuple[float, str], ...]


def checkpoint_marks(run: Shown, column: str, view: View) -> Marks:
    """Return the positions of a run's checkpoints on the x-axis; of very many some, with the first and the last."""
    saved = checkpoint_steps(run.facts.folder)
    places = positions_of(run, saved, column, view)
    if places is None:
        return ()
    seen = np.flatnonzero(_inside(places, view))
    if len(seen) > _MOST:
        seen = seen[np.linspace(0, len(seen) - 1, _MOST).astype(int)]
    return tuple((float(places[index]), f"iter-{saved[index]}-ckpt") for index in seen)


def session_marks(run: Shown, column: str, view: View) -> Marks:
    """Return where on the x-axis a run was resumed."""
    known = [one.after_step for one in run.resumed if one.after_step is not None]
    places = positions_of(run, known, column, view)
    if places is None:
        return ()
    return tuple(
        (float(place), text(view.language, "resumed_after", step=f"{step:,}"))
        for place, step, inside in zip(places, known, _inside(places, view), strict=True)
        if inside
    )


def with_lost_step(run: Shown, title: str, curve: Curve, view: View) -> Curve:
    """Add to the curve of the loss the step that ended the run, where the log has no row of it."""
    step = run.facts.status.diverged
    column = run.series[title][0]
    if step is None or title != loss_of(declared_series(run.facts.series), run.series):
        return curve
    places = positions_of(run, [step], column, view)
    if places is None or not _inside(places, view)[0] or places[0] in curve.odd_x:
        return curve
    return Curve(curve.x, curve.y, np.append(curve.odd_x, places), np.append(curve.odd_y, np.nan))


def positions_of(run: Shown, steps: Sequence[int], column: str, view: View) -> Numbers | None:
    """Return where steps are on the x-axis; None without steps, or where the log does not say it."""
    own, x = run.table.column("step"), position_of(run.table, column, view, resumed=run.resumed)
    if not len(steps) or own is None or x is None:
        return None
    known = np.isfinite(own) & np.isfinite(x)
    if not known.any():
        return None
    wanted = np.array([float(step) for step in steps])
    if view.axis == "step" and column == "step" and not view.x:
        return wanted
    order = np.argsort(own[known], kind="stable")
    found: Numbers = np.interp(wanted, own[known][order], x[known][order])
    return found


def saved_key(run: Shown) -> int:
    """Return a number that changes when checkpoints of a run come or go."""
    return zlib.crc32(",".join(map(str, checkpoint_steps(run.facts.folder))).encode())


def _inside(places: Numbers, view: View) -> Flags:
    low = view.low if view.low is not None else -np.inf
    high = view.high if view.high is not None else np.inf
    inside: Flags = (low <= places) & (places <= high)
    return inside
