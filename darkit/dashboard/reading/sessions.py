"""The sessions of a run that was resumed, and the time in which it really trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.reading.facts import Facts
from darkit.dashboard.reading.tail import Table
from darkit.runs.safe import finite_number as number

_RATE_ROWS = 200
_MOST = 1_000


@dataclass(frozen=True)
class Resumption:
    """When a run was resumed, in Unix seconds, and after which step, or None if that is unknown."""

    time: float
    after_step: int | None = None


def resumptions(facts: Facts) -> tuple[Resumption, ...]:
    """Return when a run was resumed, the earliest first."""
    entries = facts.info.get("continued")
    found = []
    for entry in entries[-_MOST:] if isinstance(entries, list) else []:
        moment = number(entry.get("time")) if isinstance(entry, dict) else None
        if moment is not None and moment > 0:
            step = entry.get("after_step")
            found.append(Resumption(moment, step if type(step) is int and step >= 0 else None))
    return tuple(sorted(found, key=lambda one: one.time))


def active_clock(clock: Numbers, resumed: Sequence[Resumption]) -> Numbers:
    """Return a log's clock (rows,) without the pauses between the sessions of a run: NaN where it is NaN.

    A pause is from the last row before a resumption to the resumption.
    """
    if not resumed or not len(clock):
        return clock
    active = clock.copy()
    known = clock[np.isfinite(clock)]
    for one in resumed:
        before = known[known < one.time]
        if len(before):
            active[clock >= one.time] -= one.time - before.max()
    return active


def began(facts: Facts) -> float:
    """Return when a run was first started, in Unix seconds, or 0."""
    created = number(facts.info.get("created")) or 0.0
    if resumptions(facts):
        return created or facts.status.started
    return facts.status.started or created


def active_seconds(facts: Facts, table: Table | None) -> float | None:
    """Return how long a run trained in all of its sessions together, or None if that is unknown."""
    status = facts.status
    if not 0 < status.started <= status.heartbeat:
        return None
    total = status.heartbeat - status.started
    starts = [began(facts), *(one.time for one in resumptions(facts))]
    clock = table.column("time") if table is not None else None
    if clock is None:
        return total
    for start, end in pairwise(starts):
        rows = clock[(clock >= start) & (clock < min(end, status.started))]
        total += float(rows.max()) - start if len(rows) else 0.0
    return total


def pace(facts: Facts, table: Table | None) -> tuple[float | None, float | None]:
    """Return steps per second, and the seconds left of a running run at that rate; None if unknown."""
    status = facts.status
    rate = steps_per_second(table, resumptions(facts), since=status.started) if table is not None else None
    left = status.max_step - status.step if status.max_step else None
    return rate, left / rate if facts.state == "running" and left is not None and left >= 0 and rate else None


def steps_per_second(table: Table, resumed: Sequence[Resumption] = (), *, since: float) -> float | None:
    """Compute the rate over the last rows of a log, or None where its clock or steps do not advance.

    Only rows of the last session count: the pause before a resume is not training. ``since`` is when that session
    began, in Unix seconds. A session that logged less than two rows takes the active time of the rows before it too.
    """
    first = max(0, table.rows - _RATE_ROWS)
    clock, step = table.column("time", first), table.column("step", first)
    if clock is None or step is None:
        return None
    current = clock >= max([since, *(one.time for one in resumed)])
    if resumed and current.sum() < 2:
        current, clock = np.isfinite(clock), active_clock(clock, resumed)
    clock, step = clock[current], step[current]
    if len(clock) < 2:
        return None
    seconds = number(float(clock[-1] - clock[0]))
    steps = number(float(step[-1] - step[0]))
    return steps / seconds if seconds and steps and seconds > 0 and steps > 0 else None
