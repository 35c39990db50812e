"""The objective of a run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from darkit.errors import ObjectiveMissingError
from darkit.runs import Run, files
from darkit.sweep.objective import direction_of, objective_name, value_of, values_by_step


@pytest.fixture
def run(tmp_path: Path) -> Run:
    rows = ["step,train_loss,val_loss,val_acc", "1,5.0,,", "2,4.0,3.0,0.5", "3,6.0,,", "4,3.5,2.0,0.25", "5,3.0,nan,"]
    (tmp_path / files.LOG).write_text("\n".join(rows) + "\n")
    files.write_json(tmp_path / files.TRAINER_CONFIG, {"monitor": "val_loss", "mode": "auto"})
    return Run(tmp_path)


def test_it_is_the_best_value_of_the_monitor(run: Run) -> None:
    assert value_of(run) == 2.0
    assert value_of(run, until=3) == 3.0
    assert value_of(run, direction="max") == 3.0


def test_another_metric_goes_by_its_own_name(run: Run) -> None:
    assert value_of(run, "val_acc") == 0.5
    assert value_of(run, "val_acc", "min") == 0.25
    assert direction_of("auto", "val_acc", run.trainer_config) == "max"
    assert objective_name(None, run.trainer_config) == "val_loss"


def test_a_metric_that_is_missing_is_refused_and_a_run_without_validation_has_its_last_training_loss(run: Run) -> None:
    with pytest.raises(ObjectiveMissingError, match=r"no column 'val_accuracy'.*Did you mean 'val_acc'"):
        value_of(run, "val_accuracy")
    (run.path / files.LOG).write_text("step,train_loss\n1,5.0\n2,4.0\n3,4.5\n")
    assert value_of(run) == 4.5
    with pytest.raises(ObjectiveMissingError, match="val_loss"):
        value_of(run, "val_loss")


def test_what_was_never_finite_has_no_value(run: Run) -> None:
    (run.path / files.LOG).write_text("step,val_loss\n1,nan\n2,inf\n")
    assert math.isnan(value_of(run))


def test_values_by_step(run: Run) -> None:
    found = values_by_step(run)
    assert {step: found[step] for step in (2, 4)} == {2: 3.0, 4: 2.0}
    assert values_by_step(run, "nothing") == {}
