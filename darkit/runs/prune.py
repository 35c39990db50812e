"""Which checkpoints and runs are old enough to go, and their removal.

A run is touched only if it has ended, nothing was saved or logged in it for the given time, and its tags lack `KEEP`.
Before anything is deleted, the checkpoints that stay are read whole: a damaged one takes no place of a good one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from darkit.errors import RunLockedError
from darkit.runs import files
from darkit.runs.best import best_mode
from darkit.runs.checkpoints import Checkpoint, list_checkpoints
from darkit.runs.ended import held, is_running
from darkit.runs.notes import read_notes
from darkit.runs.retention import Retention, remove_files
from darkit.runs.run import Run
from darkit.runs.safe import finite_number
from darkit.runs.sweeps import sweep_of
from darkit.runs.trash import move_held
from darkit.runs.usage import measure
from darkit.runs.verify import find_problem

KEEP = "keep"  # the tag of runs that are never pruned, in any case
_MONITOR = "val_loss"
_RUNNING = "it is running"


@dataclass(frozen=True)
class Policy:
    """What may go.

    Attributes:
        older_than: Seconds since a run last saved or logged anything.
        keep_last: How many checkpoints of the highest steps stay, at least 1.
        keep_best: How many of the best ones stay besides.
        whole_runs: Whether runs go to the trash as a whole.
    """

    older_than: float
    keep_last: int = 1
    keep_best: int = 0
    whole_runs: bool = False


@dataclass(frozen=True)
class Plan:
    """What goes of one run.

    Attributes:
        folder: The run directory.
        checkpoints: The checkpoints to delete; none of a run that goes as a whole.
        bytes: What they, or the whole run, take.
        kept: Why nothing goes, or empty.
        damaged: The names of checkpoints that are known to be damaged, whether they go or stay.
    """

    folder: Path
    checkpoints: tuple[Checkpoint, ...] = ()
    bytes: int = 0
    kept: str = ""
    damaged: tuple[str, ...] = ()


def plan(run: Run, policy: Policy) -> Plan:
    """Decide what goes of a run. Reads only, and of checkpoints no more than their sizes.

    Raises:
        ConfigError: The policy keeps a number of checkpoints that is out of range.
    """
    if is_running(run.path):
        return Plan(run.path, kept=_RUNNING)
    return _decide(run, policy)


def _decide(run: Run, policy: Policy, *, thorough: bool = False) -> Plan:
    folder = run.path
    notes = read_notes(folder)
    if notes.problem:
        return Plan(folder, kept=f"its notes cannot be read ({notes.problem})")
    if any(tag.lower() == KEEP for tag in notes.tags):
        return Plan(folder, kept=f"it is tagged {KEEP!r}")
    checkpoints = list_checkpoints(folder)
    if time.time() - last_change(folder, checkpoints) < policy.older_than:
        return Plan(folder, kept="it is younger")
    if policy.whole_runs:
        if sweep := sweep_of(folder):
            return Plan(folder, kept=f"it belongs to the sweep {sweep!r}")
        return Plan(folder, bytes=measure(folder).total)
    if not checkpoints:
        return Plan(folder, kept="it has no checkpoints")
    retention = _retention(run, policy)
    if thorough:
        checkpoints = _examined(checkpoints, retention)
    damaged = tuple(checkpoint.name for checkpoint in checkpoints if checkpoint.problem)
    if len(damaged) == len(checkpoints):
        return Plan(folder, kept="all of its checkpoints are damaged", damaged=damaged)
    superseded = retention.superseded(checkpoints)
    if not superseded:
        return Plan(folder, kept="it has no other checkpoints", damaged=damaged)
    return Plan(folder, tuple(superseded), sum(checkpoint.size for checkpoint in superseded), damaged=damaged)


def _examined(checkpoints: list[Checkpoint], retention: Retention) -> list[Checkpoint]:
    """Read those that would stay, and others in place of the damaged ones, until all that stay are good."""
    found = {checkpoint.step: checkpoint for checkpoint in checkpoints}
    good: set[int] = set()
    while True:
        going = {checkpoint.step for checkpoint in retention.superseded(found.values())}
        unread = [one for step, one in found.items() if step not in going | good and not one.problem]
        if not unread:
            return list(found.values())
        for one in unread:
            found[one.step] = replace(one, problem=find_problem(one))
        good |= {one.step for one in unread if not found[one.step].problem}


def carry_out(planned: Plan, policy: Policy) -> Plan:
    """Do what was planned for a run, as far as it is still right, and return what was done.

    The run may have changed since it was planned, so the decision is made again under the run's lock, and no checkpoint
    goes that was not planned. The checkpoints that stay are read whole: where one is damaged, another stays instead.

    Raises:
        StorageError: The file system refused.
    """
    try:
        with held(planned.folder):
            now = _decide(Run(planned.folder), policy, thorough=True)
            if now.kept:
                return now
            if policy.whole_runs:
                move_held(planned.folder)
                return now
            steps = {checkpoint.step for checkpoint in planned.checkpoints}
            going = tuple(checkpoint for checkpoint in now.checkpoints if checkpoint.step in steps)
            if not going:
                return Plan(planned.folder, kept="its other checkpoints are damaged", damaged=now.damaged)
            for checkpoint in going:
                remove_files(checkpoint.path)
            return Plan(planned.folder, going, sum(checkpoint.size for checkpoint in going), damaged=now.damaged)
    except RunLockedError:
        return Plan(planned.folder, kept=_RUNNING)


def last_change(folder: Path, checkpoints: Iterable[Checkpoint]) -> float:
    """Return when a run last saved or logged anything, in Unix seconds: the later of its files' times and heartbeat."""
    paths = [folder / files.STATUS, folder / files.LOG, *(checkpoint.path for checkpoint in checkpoints)]
    moments = [found for path in paths if (found := _modified(path))]
    beat = finite_number(files.read_json(folder / files.STATUS).get("heartbeat"))
    return max([*moments, beat or 0.0] if moments else [_modified(folder)])


def _retention(run: Run, policy: Policy) -> Retention:
    trainer = run.trainer_config
    monitor = trainer.get("monitor")
    monitor = monitor if isinstance(monitor, str) else _MONITOR
    return Retention(policy.keep_last, policy.keep_best, monitor, best_mode(trainer, monitor))


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
