"""The journal of a sweep, also after the sweep was killed."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
from optuna.trial import TrialState

from darkit.sweep.journal import RUNS, VALUES, Journal, as_seen
from darkit.sweep.sampling import Suggestion
from darkit.sweep.space import split_space

DISTRIBUTIONS = {
    dimension.key: dimension.distribution() for dimension in split_space(["lr=interval(1e-4,1e-1,log)", "o=a,b"])[1]
}


def add(journal: Journal, lr: float) -> None:
    journal.add(Suggestion({"lr": lr, "o": "a"}, {"mark": 1}), DISTRIBUTIONS, {"lr": repr(lr), "o": "a"}, [f"run-{lr}"])


def test_trials_are_read_back_with_all_that_they_had(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log", "s", "max")
    for lr in (0.1, 0.01, 0.001, 0.0001):
        add(journal, lr)
    journal.report(0, 10, 1.5)
    journal.finish(0, 2.5)
    journal.report(1, 10, 1.0)
    journal.finish(1, 1.0, pruned=True)
    journal.finish(2, math.nan, reason="diverged")
    journal.report(3, 10, 0.5)
    trials = Journal(tmp_path / "journal.log", "s", "max").trials()
    names = ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert [trial.state.name for trial in trials] == names
    assert trials[0].user_attrs == {RUNS: ["run-0.1"], VALUES: {"lr": "0.1", "o": "a"}}
    assert (trials[0].value, trials[0].intermediate_values, trials[0].system_attrs) == (2.5, {10: 1.5}, {"mark": 1})
    assert [trial.params["lr"] for trial in trials] == [0.1, 0.01, 0.001, 0.0001]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name="s", storage=storage)
    assert study.best_trial.number == 0, "Optuna reads it itself"


def test_a_journal_whose_sweep_was_killed_while_it_wrote_is_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    journal = Journal(path, "s", "min")
    add(journal, 0.1)
    whole = path.read_bytes()
    add(journal, 0.01)
    path.write_bytes(path.read_bytes()[:-7])
    Path(f"{path}.lock").touch()
    again = Journal(path, "s", "min")
    assert [trial.params["lr"] for trial in again.trials()] == [0.1]
    assert path.read_bytes() == whole
    add(again, 0.02)
    assert [trial.params["lr"] for trial in Journal(path, "s", "min").trials()] == [0.1, 0.02]


def test_a_paused_trial_is_seen_as_pruned_at_its_last_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log", "s", "min")
    for lr in (0.1, 0.01, 0.001):
        add(journal, lr)
    journal.report(0, 10, 1.5)
    journal.report(0, 30, 1.25)
    journal.report(1, 10, math.nan)
    seen = as_seen(journal.trials(), 3)
    assert [trial.state for trial in seen] == [TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert (seen[0].value, seen[0].intermediate_values) == (1.25, {10: 1.5, 30: 1.25})
