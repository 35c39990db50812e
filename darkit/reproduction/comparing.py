"""A run and its repetition compared: environment, settings and data by name, rows and checkpoints bit for bit."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from darkit.runs import Run
from darkit.runs.packages import changed_packages, installed_packages
from darkit.runs.safe import as_dict

_PLACES = ("darkit.run", "darkit.id")  # entries of a checkpoint of Lightning's loop that name its run
_NEW = ("given_settings", "darkit.given_settings")  # entries that checkpoints of earlier versions lack
_OWN_SETTINGS = ("name", "project")
Pairs = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Comparison:
    """What was compared, and how it differs.

    Attributes:
        rows: The number of compared rows.
        checkpoints: The number of compared checkpoints.
        step: The first step that differs, or None.
        place: The column or tensor that differs there, with both values where they are numbers.
        entry: The first entry of a checkpoint that differs, with its step and deviation, or empty.
        deviation: The largest deviation of all that was compared; infinite where something is missing.
        where: The column or tensor, and the step, of that deviation.
    """

    rows: int
    checkpoints: int
    step: int | None = None
    place: str = ""
    entry: str = ""
    deviation: float = 0.0
    where: str = ""


def changed_environment(run: Run) -> Pairs:
    """Return what differs between a run's environment and this one: name -> (recorded, here)."""
    recorded = as_dict(run.environment.get("packages"))
    pairs: Pairs = {name: (pair[0], pair[1]) for name, pair in changed_packages(recorded, installed_packages()).items()}
    info = run.info
    python = as_dict(info.get("versions")).get("python")
    system = as_dict(info.get("host")).get("system")
    here = {"python": (python, platform.python_version()), "system": (system, platform.platform())}
    return {name: pair for name, pair in here.items() if pair[0] is not None and pair[0] != pair[1]} | pairs


def changed_machine(recorded: Run, repeated: Run, after: int) -> Pairs:
    """Return what differs between the machine of the first step that is compared and that of the repetition.

    A run of an earlier version recorded none.

    Args:
        recorded: The run.
        repeated: Its repetition.
        after: The step before the first one that is compared.
    """
    before, now = _machine(recorded, after), _machine(repeated, math.inf)
    return {key: (before[key], now.get(key)) for key in before if before[key] != now.get(key)}


def _machine(run: Run, after: float) -> dict[str, Any]:
    """Return the machine on which a run was begun, or on which it was last resumed by a step."""
    entries = run.info.get("continued")
    found = run.info.get("machine")
    for entry in map(as_dict, entries if isinstance(entries, list) else []):
        step = entry.get("after_step")
        if type(step) is int and step <= after:
            found = entry.get("machine")
    return as_dict(found)


def changed_settings(recorded: Run, repeated: Run) -> Pairs:
    """Return the settings and facts of the data that differ: name -> (recorded, repeated)."""
    found: Pairs = {}
    for prefix, one, other in (
        ("trainer.", recorded.trainer_config, repeated.trainer_config),
        ("model.", recorded.model_config, repeated.model_config),
        ("data.", as_dict(recorded.info.get("data")), as_dict(repeated.info.get("data"))),
    ):
        for key in {**one, **other}:
            pair = one.get(key), other.get(key)
            if pair[0] != pair[1] and not (prefix == "trainer." and key in _OWN_SETTINGS):
                found[prefix + key] = pair
    return found


def compare(recorded: Run, repeated: Run, after: int, last: int) -> Comparison:
    """Compare the rows and common checkpoints of two runs.

    Args:
        recorded: The run.
        repeated: Its repetition.
        after: The step before the first one that is compared.
        last: The last one.
    """
    from darkit.engine.checkpoints.checkpoint import read_checkpoint
    from darkit.engine.checkpoints.difference import IGNORED_COLUMNS, differences

    rows, again = _rows(recorded, after, last), _rows(repeated, after, last)
    found = [
        (step, f"column {column}", one, other)
        for step, row in rows.items()
        for column, one, other in _cells(row, again.get(step, {}), is_last=step == last)
        if column not in IGNORED_COLUMNS
    ]
    twins = {one.step: one for one in repeated.checkpoints() if not one.problem}
    pairs = [(one, twins[one.step]) for one in recorded.checkpoints() if after < one.step <= last and one.step in twins]
    tensors = [
        (one.step, path, deviation)
        for one, other in pairs
        for path, deviation in differences(read_checkpoint(one), read_checkpoint(other))
        if path not in (*_PLACES, *_NEW)
    ]
    all_found = [
        (step, place, _deviation(one, other), f": {one!r} recorded, {other!r} now") for step, place, one, other in found
    ]
    all_found += [(step, place, deviation, "") for step, place, deviation in tensors]
    if not all_found:
        return Comparison(len(rows), len(pairs))
    step, place, _, values = min(all_found, key=lambda one: one[0])
    most = max(all_found, key=lambda one: one[2])
    entry = ""
    if tensors:
        first, path, deviation = min(tensors, key=lambda one: one[0])
        entry = f"{path} at step {first}, by {deviation:g}"
    return Comparison(len(rows), len(pairs), step, place + values, entry, most[2], f"{most[1]} at step {most[0]}")


def first_recorded(run: Run, after: int) -> int | None:
    """Return the first step after ``after`` of which a run has a row or a checkpoint, or None."""
    steps = [*_rows(run, after, math.inf), *(one.step for one in run.checkpoints() if one.step > after)]
    return min(steps, default=None)


def _rows(run: Run, after: int, last: float) -> dict[int, dict[str, Any]]:
    """Return the rows of steps, in order; several rows of a step are one."""
    found: dict[int, dict[str, Any]] = {}
    for row in run.log().to_dicts():
        step = row.get("step")
        if isinstance(step, int) and after < step <= last:
            values = {key: value for key, value in row.items() if value is not None}
            found.setdefault(step, {}).update(values)
    return dict(sorted(found.items()))


def _cells(one: Mapping[str, Any], other: Mapping[str, Any], *, is_last: bool) -> Iterator[tuple[str, Any, Any]]:
    """Yield the columns that differ; what the repetition's last row has beside, as any run's, is no difference."""
    for column in {**one, **({} if is_last else other)}:
        mine, theirs = one.get(column), other.get(column)
        if mine != theirs and not (mine != mine and theirs != theirs):
            yield column, mine, theirs


def _deviation(one: Any, other: Any) -> float:
    try:
        apart = abs(float(one) - float(other))
    except (TypeError, ValueError):
        return math.inf
    return apart if apart == apart else math.inf
