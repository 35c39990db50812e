"""The sweep itself: suggest, train, compare and promote, until every trial of the plan has ended.

It is a program that can be run again from its beginning at any time: what the journal and the runs have already is
taken from there. So a sweep that was killed continues where it was, and decides the same.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from darkit.errors import SweepError
from darkit.runs import Run, base
from darkit.runs.names import run_path
from darkit.runs.status import STOPPED
from darkit.sweep.folder import OUTPUT, Definition, SweepFolder
from darkit.sweep.journal import RUNS, VALUES, Journal, as_seen
from darkit.sweep.naming import short_keys, trial_name
from darkit.sweep.objective import value_of, values_by_step
from darkit.sweep.pool import Pool, Request
from darkit.sweep.progress import Progress, has_diverged, has_reached, is_pruned, wait_for_others, why_failed
from darkit.sweep.rungs import Bracket, promote
from darkit.sweep.sampling import Suggestions
from darkit.sweep.space import text_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_KILLED = (130, 143, 255)  # exit codes of a child that somebody stopped or killed
_MOST_RETRIES = 2  # of a run whose process was killed


class Scheduler:
    """Runs the trials of a sweep.

    Args:
        folder: The sweep's folder, whose lock is held.
        definition: What the sweep is.
        plan: Its brackets.
        journal: Its trials.
        pool: The processes.
        progress: Is told what happens, and writes the tables.
    """

    def __init__(
        self,
        folder: SweepFolder,
        definition: Definition,
        plan: Sequence[Bracket],
        journal: Journal,
        pool: Pool,
        progress: Progress,
    ) -> None:
        self.folder, self.definition, self.plan = folder, definition, plan
        self.journal, self.pool, self.progress = journal, pool, progress
        self.suggestions = Suggestions(definition.settings, definition.space, definition.direction)
        self.short = short_keys([dimension.key for dimension in definition.space])
        self._waits = self.suggestions.learns or definition.settings.pruner == "median"
        self._begun: set[int] = set()  # trials that have reached their first rung, or failed
        self._retries: dict[str, int] = {}

    def run(self) -> None:
        """Run until every trial has ended, or a signal came.

        Raises:
            SweepError: The first trial was refused, which would happen to the others too.
            ObjectiveMissingError: The runs do not have the objective.
        """
        for bracket in self.plan:
            alive = list(bracket.numbers)
            for index, step in enumerate(bracket.rungs):
                values = self._advance(alive, step)
                if self.pool.stopped:
                    return
                if index == len(bracket.rungs) - 1:
                    self._finish(values)
                    break
                kept, left = promote(values, self.definition.settings.factor, self.definition.direction)
                self.progress.compare(bracket, step, values, kept)
                self._finish({number: values[number] for number in left}, pruned=True)
                alive = kept
        self.progress.write(self.journal.trials())

    def _advance(self, numbers: Iterable[int], step: int | None) -> dict[int, float]:
        """Train trials up to a step; return their values, NaN for those that failed."""
        waiting, jobs = deque(numbers), deque[tuple[int, str]]()
        open_runs: dict[int, set[str]] = {}
        values: dict[int, float] = {}
        while (waiting or open_runs) and not (self.pool.stopped and not self.pool.running):
            while self.pool.is_free and (jobs or waiting):
                if not jobs:
                    if not self._may_begin(waiting[0]) or not self._open(waiting[0], step, open_runs, values, jobs):
                        break
                    waiting.popleft()
                    continue
                number, run = jobs.popleft()
                self._start(number, run, step)
            if not self.pool.running:
                continue
            for run, code in self.pool.wait():
                number = next(number for number, runs in open_runs.items() if run in runs)
                if self._is_done(number, run, code, step):
                    open_runs[number].discard(run)
                    if not open_runs[number]:
                        del open_runs[number]
                        values[number] = self._settle(number, step)
                elif self.pool.stopped:
                    return values
                else:
                    jobs.appendleft((number, run))
        return values

    def _may_begin(self, number: int) -> bool:
        """Return whether all results that a trial depends on are there."""
        return not self._waits or self._begun.issuperset(range(number - self.definition.settings.jobs + 1))

    def _open(
        self,
        number: int,
        step: int | None,
        open_runs: dict[int, set[str]],
        values: dict[int, float],
        jobs: deque[tuple[int, str]],
    ) -> bool:
        """Open a trial: enqueue its runs, or take its value if it is known; False while another trial has its run."""
        trial = self._trial(number)
        if trial.state.is_finished() or (step is not None and step in trial.intermediate_values):
            self._begun.add(number)
            values[number] = trial.intermediate_values.get(-1 if step is None else step, _value(trial))
            return True
        names = trial.user_attrs[RUNS]
        if any(name in runs for name in names for runs in open_runs.values()):
            return False
        missing = [name for name in names if not self._has_reached(name, step)]
        if missing:
            open_runs[number] = {*missing}
            jobs.extend((number, name) for name in missing)
        else:
            values[number] = self._settle(number, step)
        return True

    def _trial(self, number: int) -> FrozenTrial:
        """Return a trial, suggested now if it is new."""
        trials = self.journal.trials()
        if number < len(trials):
            return trials[number]
        finished = number - self.definition.settings.jobs + 1
        suggestion = self.suggestions.suggest(number, as_seen(trials[:number], finished))
        values = {key: text_of(value) for key, value in suggestion.params.items()}
        same = next((trial for trial in trials if trial.user_attrs[VALUES] == values), None)
        runs = same.user_attrs[RUNS] if same is not None else self._names(number, values, trials)
        return self.journal.add(suggestion, self.suggestions.distributions, values, runs)

    def _names(self, number: int, values: dict[str, str], trials: Sequence[FrozenTrial]) -> list[str]:
        used = {name for trial in trials for name in trial.user_attrs[RUNS]}
        endings = [f"-seed={seed}" for seed in self.definition.seeds] or [""]
        root = base()

        def is_taken(stem: str) -> bool:
            names = [stem + ending for ending in endings]
            return bool(used.intersection(names)) or any(run_path(root, name).exists() for name in names)

        short = {self.short[dimension.key]: values[dimension.key] for dimension in self.definition.space}
        stem = trial_name(self.definition.name, short, number, is_taken)
        return [stem + ending for ending in endings]

    def _start(self, number: int, run: str, step: int | None) -> None:
        trial = self.journal.trials()[number]
        wait_for_others(run, lambda: bool(self.pool.stopped))
        output = self.folder.path / OUTPUT
        output.mkdir(exist_ok=True)
        median = None
        if self.definition.settings.pruner == "median":
            last = number - self.definition.settings.jobs
            done = [trial for trial in self.journal.trials()[: last + 1] if trial.state.name == "COMPLETE"]
            median = {
                "others": [trial.intermediate_values for trial in done if trial.intermediate_values],
                "objective": self.definition.objective,
                "direction": self.definition.direction,
            }
        last_step = self.definition.facts["max_step"]
        self.pool.start(
            Request(
                run=run,
                words=(*self.words_of(trial, run), f"name={run}", "resume=auto"),
                output=str(output / f"{run}.log"),
                folder=os.getcwd(),  # noqa: PTH109
                environment=dict(os.environ),
                lineage={"group": self.definition.name, "sweep": {"name": self.definition.name, "trial": number}},
                sweep=self.definition.name,
                pause_at=step if step is not None and step < last_step else None,
                median=median,
            )
        )
        self.progress.begin(number, run, step)

    def words_of(self, trial: FrozenTrial, run: str = "") -> list[str]:
        """Return the overrides of a trial, for one of its runs or without a seed."""
        words = [*self.definition.words, *(f"{key}={text}" for key, text in trial.user_attrs[VALUES].items())]
        if self.definition.seeds and run:
            seed = dict(zip(trial.user_attrs[RUNS], self.definition.seeds, strict=True))[run]
            words.append(f"trainer.seed={seed}")
        return words

    def _has_reached(self, name: str, step: int | None) -> bool:
        run = Run(base() / name)
        return has_reached(run, step) or (self.definition.settings.pruner == "median" and is_pruned(run))

    def _is_done(self, number: int, name: str, code: int, step: int | None) -> bool:
        """Return whether nothing is left to do for a run whose process has ended."""
        output = self.folder.path / OUTPUT / f"{name}.log"
        run = Run(base() / name)
        if code == 0 or self._has_reached(name, step):  # 0 also if a person has stopped it
            output.unlink(missing_ok=True)
            return True
        if self.pool.stopped:
            return False
        if code < 0 or code in _KILLED:
            self._retries[name] = self._retries.get(name, 0) + 1
            if self._retries[name] <= _MOST_RETRIES:
                return False
        reason = why_failed(run, output, code)
        if code == 2 and not number and not run.path.exists():
            raise SweepError(f"The first trial of the sweep was refused. {reason}")
        self.progress.fail(number, name, reason)
        return True

    def _settle(self, number: int, step: int | None) -> float:
        """Record the value of a trial at a step."""
        self._begun.add(number)
        if number in self.progress.failed:
            self.progress.write(self.journal.trials())
            return math.nan
        trial = self.journal.trials()[number]
        settings = self.definition.settings
        runs = [Run(base() / name) for name in trial.user_attrs[RUNS]]
        value = math.nan
        if not any(has_diverged(run) for run in runs):
            found = [value_of(run, settings.objective, self.definition.direction, until=step) for run in runs]
            value = sum(found) / len(found)
        if step is not None:
            self.journal.report(number, step, value)
        elif settings.pruner == "median":
            for at, seen in values_by_step(runs[0], self.definition.objective).items():
                self.journal.report(number, at, seen)
        if not math.isfinite(value):
            self.journal.finish(number, value, reason="The objective is not finite.")
        elif step is None:
            self.journal.finish(number, value, pruned=any(run.status == STOPPED for run in runs))
        self.progress.settle(number, value, step, self.journal.trials())
        return value

    def _finish(self, values: dict[int, float], *, pruned: bool = False) -> None:
        """End trials that are not promoted, or have reached the last rung; those that failed are tried again later."""
        trials = self.journal.trials()
        for number, value in values.items():
            if not trials[number].state.is_finished() and number not in self.progress.failed:
                self.journal.finish(number, value, pruned=pruned)
        self.progress.write(self.journal.trials())


def _value(trial: FrozenTrial) -> float:
    return math.nan if trial.value is None else trial.value
