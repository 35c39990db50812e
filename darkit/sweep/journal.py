"""The trials of a sweep in Optuna's journal: a file that is only appended to, and read by Optuna's own tools.

A trial is added as a whole, with its settings and the names of its runs, so that a sweep that is killed at any moment
finds every trial as it was suggested. The sweep's lock is held, so nobody else writes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.errors import SweepError
from darkit.runs import files
from darkit.runs.names import is_name
from darkit.sweep.naming import run_prefix
from darkit.sweep.sampling import Suggestion, optuna_direction, quiet_optuna
from darkit.sweep.space import Dimension, text_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RUNS = "runs"  # the names of a trial's runs, and ...
VALUES = "values"  # ... the text of each of its settings
REASON = "reason"  # why a trial has no objective


class Journal:
    """The trials of one sweep.

    The file is not sealed: `check` refuses trials that this sweep cannot have suggested.

    Args:
        path: The journal, which is made if it is missing.
        name: The name of Optuna's study.
        direction: ``min`` or ``max``.

    Raises:
        SweepError: The file is damaged.
        StorageError: It cannot be opened.
    """

    def __init__(self, path: Path, name: str, direction: str) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        _repair(path)
        with quiet_optuna(), files.storage_errors(f"open {path}"):
            lock = JournalFileOpenLock(str(path))
            try:
                self._storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
            except OSError:
                raise
            except Exception as error:  # Optuna replays it as it is: a damaged line may fail in any way
                raise _damaged(path, "a line cannot be read") from error
            try:
                self._study = optuna.load_study(study_name=name, storage=self._storage)
            except KeyError:  # it is new
                self._study = optuna.create_study(
                    study_name=name, storage=self._storage, direction=optuna_direction(direction)
                )
        self._id = self._storage.get_study_id_from_name(name)
        self._path, self._name = path, name

    def check(self, space: Sequence[Dimension], seeds: Sequence[int] = ()) -> None:
        """Check that all trials are ones of this sweep, since their values become overrides and their names folders.

        Args:
            space: The search space.
            seeds: The seeds of each trial.

        Raises:
            SweepError: A trial has other settings, a value that the space does not have, or a strange run.
        """
        with quiet_optuna():
            expected = {dimension.key: dimension.distribution() for dimension in space}
        for trial in self.trials():
            values, runs = trial.user_attrs.get(VALUES), trial.user_attrs.get(RUNS)
            if trial.distributions != expected or trial.params.keys() != expected.keys():
                raise _damaged(self._path, f"trial {trial.number} has another search space")
            if values != {key: text_of(value) for key, value in trial.params.items()}:
                raise _damaged(self._path, f"trial {trial.number} has other values than Optuna suggested")
            for key, distribution in expected.items():
                if not distribution._contains(distribution.to_internal_repr(trial.params[key])):
                    raise _damaged(self._path, f"trial {trial.number} has a value of {key} outside the search space")
            if not isinstance(runs, list) or len(runs) != max(1, len(seeds)):
                raise _damaged(self._path, f"trial {trial.number} does not have {max(1, len(seeds))} runs")
            if strange := [run for run in runs if not _is_run_of(run, self._name)]:
                raise _damaged(
                    self._path, f"trial {trial.number} has the run {strange[0]!r}, which is not of the sweep"
                )

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by number."""
        return list(self._study.get_trials(deepcopy=False))

    def add(
        self,
        suggestion: Suggestion,
        distributions: Mapping[str, Any],
        values: Mapping[str, str],
        runs: Sequence[str],
    ) -> FrozenTrial:
        """Add the next trial at once."""
        from optuna.trial import TrialState, create_trial

        made = create_trial(
            state=TrialState.RUNNING,
            params=dict(suggestion.params),
            distributions=dict(distributions),
            system_attrs=dict(suggestion.attributes),
            user_attrs={RUNS: list(runs), VALUES: dict(values)},
        )
        self._storage.create_new_trial(self._id, template_trial=made)
        return self.trials()[-1]

    def report(self, number: int, step: int, value: float) -> None:
        """Record the value of a trial at a step."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), step, value)

    def finish(self, number: int, value: float, *, pruned: bool = False, reason: str = "") -> None:
        """Record the end of a trial: complete or pruned with a value, or failed where that is not finite."""
        from optuna.trial import TrialState

        if reason:
            self._storage.set_trial_user_attr(self._trial_id(number), REASON, reason)
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        if not math.isfinite(value):
            self._storage.set_trial_state_values(self._trial_id(number), TrialState.FAIL)
        else:
            self._storage.set_trial_state_values(self._trial_id(number), state, [value])

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def as_seen(trials: Sequence[FrozenTrial], finished: int) -> list[FrozenTrial]:
    """Return copies of trials as a sampler may see them: the first ``finished`` with their results, others as running.

    A trial that is paused counts as pruned, with its value at the last step that was compared.
    """
    from optuna.trial import TrialState, create_trial

    seen = []
    for trial in trials:
        state, value = trial.state, trial.value if trial.state.is_finished() else None
        if trial.number >= finished:
            state, value = TrialState.RUNNING, None
        elif state == TrialState.RUNNING and trial.intermediate_values:
            state, value = TrialState.PRUNED, trial.intermediate_values[max(trial.intermediate_values)]
            state = state if math.isfinite(value) else TrialState.FAIL
        seen.append(
            create_trial(
                state=state,
                value=None if state in (TrialState.FAIL, TrialState.RUNNING) else value,
                params=dict(trial.params),
                distributions=dict(trial.distributions),
                system_attrs=dict(trial.system_attrs),
                intermediate_values={} if state == TrialState.RUNNING else dict(trial.intermediate_values),
            )
        )
    return seen


def _is_run_of(run: object, sweep: str) -> bool:
    return isinstance(run, str) and is_name(run) and run.startswith(run_prefix(sweep))


def _damaged(path: Path, what: str) -> SweepError:
    return SweepError(
        f"The sweep cannot be read: {path} is damaged ({what}). Give the whole command with another name=."
    )


def _repair(path: Path) -> None:
    """Remove what a killed sweep left: the lock of the journal, and a line that was written in part."""
    with files.storage_errors(f"open {path}"):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _damaged(path, "it is not a plain file")
        Path(f"{path}.lock").unlink(missing_ok=True)
        if not path.exists():
            return
        with path.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())
