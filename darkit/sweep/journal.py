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

from darkit.runs import files
from darkit.sweep.sampling import Suggestion, optuna_direction, quiet_optuna

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RUNS = "runs"  # the names of a trial's runs, and ...
VALUES = "values"  # ... the text of each of its settings
REASON = "reason"  # why a trial has no objective


class Journal:
    """The trials of one sweep.

    Args:
        path: The journal, which is made if it is missing.
        name: The name of Optuna's study.
        direction: ``min`` or ``max``.
    """

    def __init__(self, path: Path, name: str, direction: str) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        _repair(path)
        with quiet_optuna(), files.storage_errors(f"open {path}"):
            lock = JournalFileOpenLock(str(path))
            self._storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
            try:
                self._study = optuna.load_study(study_name=name, storage=self._storage)
            except KeyError:  # it is new
                self._study = optuna.create_study(
                    study_name=name, storage=self._storage, direction=optuna_direction(direction)
                )
        self._id = self._storage.get_study_id_from_name(name)

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


def _repair(path: Path) -> None:
    """Remove what a killed sweep left: the lock of the journal, and a line that was written in part."""
    with files.storage_errors(f"open {path}"):
        Path(f"{path}.lock").unlink(missing_ok=True)
        if not path.exists():
            return
        with path.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())
