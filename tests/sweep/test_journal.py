"""The journal of a sweep, also after the sweep was killed."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from darkit.errors import SweepError
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


SPACE = split_space(["lr=interval(1e-4,1e-1,log)", "o=a,b"])[1]


def test_trials_of_the_sweep_pass_and_those_that_another_has_written_do_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    journal = Journal(path, "run", "min")
    add(journal, 0.1)
    add(journal, 0.000123456789)
    Journal(path, "run", "min").check(SPACE)
    whole = path.read_text()
    for old, new, said in (
        ('"lr":"0.1"', '"lr":"0.5"', "trial 0 has other values than Optuna suggested"),
        ('"o":"a"', '"o":"a","model._target_":"os.system"', "trial 0 has other values than"),
        ('"lr":"0.1"', '"lr._target_":"os.system"', "trial 0 has other values than"),
        ('"o":"a"', '"o":"b"', "trial 0 has other values than"),
        ('"run-0.1"', '"../../../victim"', "has the run '../../../victim', which is not of the sweep"),
        ('"run-0.1"', '"victim"', "has the run 'victim', which is not of the sweep"),
        ('"run-0.1"', '"run-0.1","run-b"', "trial 0 does not have 1 runs"),
        ('"lr":0.1,', '"lr":0.5,', "trial 0 has other values than"),
    ):
        changed = whole.replace(old, new, 1)
        assert changed != whole, old
        path.write_text(changed)
        with pytest.raises(SweepError, match="is damaged") as refused:
            Journal(path, "run", "min").check(SPACE)
        assert said in str(refused.value)
    path.write_text(whole.replace('"lr":0.1,', '"lr":0.5,', 1).replace('"lr":"0.1"', '"lr":"0.5"', 1))
    with pytest.raises(SweepError, match="a value of lr outside the search space"):
        Journal(path, "run", "min").check(SPACE)
    path.write_text(whole)
    with pytest.raises(SweepError, match="trial 0 has another search space"):
        Journal(path, "run", "min").check(SPACE[:1])


def test_a_damaged_line_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    add(Journal(path, "run", "min"), 0.1)
    whole = path.read_bytes()
    for line in (b"{nonsense\n", b'{"op_code": 4}\n', b"\xff\n", b"[]\n"):
        path.write_bytes(line + whole)
        with pytest.raises(SweepError, match=r"journal\.log is damaged"):
            Journal(path, "run", "min")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SweepError, match="it is not a plain file"):
        Journal(path, "run", "min")


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
