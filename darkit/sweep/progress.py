"""What a sweep tells: its tables ``trials.csv`` and ``rungs.csv``, the best trial, and each event as it happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.errors import SweepError
from darkit.runs import Run, base, files
from darkit.runs.lock import is_locked
from darkit.runs.status import CRASHED, FINISHED, STOPPED
from darkit.sweep.folder import BEST, RUNGS, TRIALS, Definition, SweepFolder
from darkit.sweep.journal import RUNS, VALUES
from darkit.sweep.naming import columns
from darkit.sweep.rungs import Bracket

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PAUSED = "Paused at step"  # how the reason of a paused run begins
PRUNED = "by the pruner"  # and how it ends if it is not to go on
_NOT_FINITE = "The loss is not finite"  # how the reason of a run that diverged begins
_PATIENCE = 120.0  # seconds for a run that a killed sweep left to save and to stop
_ERROR = "Error: "
COLUMNS = ("state", "objective", "step", "runs", "reason", "trial")  # of a trial's row, beside its settings


@dataclass
class Progress:
    """Follows a sweep.

    Attributes:
        folder: The sweep's folder.
        definition: What the sweep is.
        trials: Number of trials in all.
        tell: Called with the number of a trial and the columns of its row, whenever it has a new value or failed.
        failed: The trials that failed, and why; they are tried again when the sweep is.
    """

    folder: SweepFolder
    definition: Definition
    trials: int
    tell: Callable[[int, Mapping[str, str]], None] = lambda number, row: None
    failed: dict[int, str] = field(default_factory=dict)
    _rungs: list[list[Any]] = field(default_factory=list)
    _running: set[int] = field(default_factory=set)
    _rows: dict[int, tuple[Any, dict[str, str]]] = field(default_factory=dict)

    def begin(self, number: int, run: str, step: int | None) -> None:
        """Note that a run of a trial starts."""
        self._running.add(number)

    def fail(self, number: int, run: str, reason: str) -> None:
        """Note that a run of a trial failed."""
        self._running.discard(number)
        self.failed[number] = f"{run}: {reason}"
        self.tell(number, {"state": "failed", "objective": "", "reason": reason, "runs": run})

    def settle(self, number: int, value: float, step: int | None, trials: Sequence[FrozenTrial]) -> None:
        """Note the value of a trial at a step."""
        self._running.discard(number)
        self.write(trials)
        self.tell(number, self.row(trials[number]))

    def compare(self, bracket: Bracket, step: int | None, values: Mapping[int, float], kept: Sequence[int]) -> None:
        """Record which trials of a rung are promoted."""
        first = bracket.numbers.start
        self._rungs = [row for row in self._rungs if (row[0], row[1]) != (first, step)]
        for number, value in sorted(values.items()):
            self._rungs.append([first, step, number, _text(value), "yes" if number in kept else "no"])
        self.folder.write_table(RUNGS, ["bracket", "step", "trial", "value", "promoted"], self._rungs)

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """Write the table of the trials, and the best one."""
        keys = [dimension.key for dimension in self.definition.space]
        rows = []
        for trial in trials:
            row = self.row(trial)
            values = [trial.user_attrs[VALUES][key] for key in keys]
            rows.append([trial.number, row["state"], row["objective"], row["step"], row["runs"], *values])
        header = ["trial", "state", self.definition.objective, "step", "runs"]
        header += [f"{key}=" if key in header else key for key in keys]
        self.folder.write_table(TRIALS, header, rows)
        best = best_trial(trials, self.definition.direction)
        if best is not None:
            files.write_json(self.folder.path / BEST, self.describe(best))

    def describe(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return what ``best.json`` says of a trial."""
        values = trial.user_attrs[VALUES]
        return {
            "trial": trial.number,
            "objective": self.definition.objective,
            "direction": self.definition.direction,
            "value": trial.value,
            "values": dict(values),
            "runs": list(trial.user_attrs[RUNS]),
            "words": [*self.definition.words, *(f"{key}={text}" for key, text in values.items())],
        }

    def row(self, trial: FrozenTrial) -> dict[str, str]:
        """Return the columns of a trial's row as text. What has not changed is not read again."""
        key = (self.state(trial), trial.value, len(trial.intermediate_values))
        if (known := self._rows.get(trial.number)) is None or known[0] != key or key[0] in ("running", "failed"):
            known = self._rows[trial.number] = (key, self._row(trial))
        return known[1]

    def _row(self, trial: FrozenTrial) -> dict[str, str]:
        steps = trial.intermediate_values
        known = trial.value if trial.value is not None else (steps[max(steps)] if steps else None)
        reached = [Run(base() / name).details.step for name in trial.user_attrs[RUNS]]
        row = {
            "state": self.state(trial),
            "objective": _text(known),
            "step": str(min(reached, default=0)),
            "runs": " ".join(trial.user_attrs[RUNS]),
            "reason": self.failed.get(trial.number, ""),
        }
        names = columns([dimension.key for dimension in self.definition.space], COLUMNS)
        return row | {names[key]: text for key, text in trial.user_attrs[VALUES].items()}

    def state(self, trial: FrozenTrial) -> str:
        """Return the state of a trial in a word."""
        if trial.number in self.failed:
            return "failed"
        names = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "diverged"}
        if trial.state.name in names:
            return names[trial.state.name]
        return "paused" if trial.intermediate_values and trial.number not in self._running else "running"


def best_trial(trials: Sequence[FrozenTrial], direction: str) -> FrozenTrial | None:
    """Return the best of the trials that were trained to their end, of equal ones the first; None without one."""
    done = [trial for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    sign = -1 if direction == "max" else 1
    return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def has_reached(run: Run, step: int | None) -> bool:
    """Return whether a run has ended, or has a checkpoint of a step or a later one.

    A run whose loss became infinite has ended too.
    """
    if not run.path.exists() or is_locked(run.path):
        return False
    if run.status == FINISHED or has_diverged(run):
        return True
    if step is None:
        return False
    found = run.latest_checkpoint()
    return found is not None and found.step >= step


def has_begun(trials: Sequence[FrozenTrial]) -> bool:
    """Return whether a trial has ended, or a run of one exists."""
    return any(
        trial.state.is_finished() or any((base() / name).exists() for name in trial.user_attrs[RUNS])
        for trial in trials
    )


def has_diverged(run: Run) -> bool:
    """Return whether the loss of a run became infinite or NaN."""
    details = run.details
    return details.state == CRASHED and details.reason.startswith(_NOT_FINITE)


def is_pruned(run: Run) -> bool:
    """Return whether a run was paused for good, by a pruner."""
    if not run.path.exists() or is_locked(run.path):
        return False
    reason = run.details.reason
    return run.status == STOPPED and reason.startswith(PAUSED) and reason.endswith(f"{PRUNED}.")


def wait_for_others(name: str, is_stopped: Callable[[], bool]) -> None:
    """Wait until the process that a killed sweep left has stopped its run.

    Raises:
        SweepError: Something else trains the run, and does not end.
    """
    folder, deadline = base() / name, time.monotonic() + _PATIENCE
    while folder.exists() and is_locked(folder) and not is_stopped():
        if time.monotonic() > deadline:
            raise SweepError(f"The run {name!r} is trained by another process. Stop it, and run the sweep again.")
        time.sleep(0.05)


def why_failed(run: Run, output: Path, code: int) -> str:
    """Return why the process of a run failed, in one sentence."""
    details = run.details if run.path.exists() else None
    if details is not None and details.state == CRASHED and details.reason:
        return details.reason
    try:
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = next((line.removeprefix(_ERROR) for line in reversed(lines) if line.startswith(_ERROR)), "")
    if told:
        return told
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"Its process {how}; see {output}."


def _text(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)
