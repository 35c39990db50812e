"""What a training tells at its end."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from darkit import fit
from darkit.cli.final_report import darkit_command, final_report, resume_hint
from darkit.runs import load
from tests.engine.parts import made


@pytest.fixture
def logged(runs: Path) -> Path:
    """The run on text with a log that one can compute from."""
    log = runs / "text" / "train_log.csv"
    log.write_text("step,time,train_loss,val_loss\n1,100.0,5.0,\n2,100.5,3.0,4.0\n3,101.0,3.5,\n4,101.5,3.25,4.5\n")
    return runs


def test_losses_are_the_best_and_the_last_beside_the_baselines(logged: Path) -> None:
    report = final_report(load("text"), first_step=0, seconds=9.0, baselines={"unigram model": 5.5, "nothing": 6.0})
    assert "  train loss     best 3.0000, last 3.2500\n" in report
    assert "  val loss       best 4.0000, last 4.5000 (unigram model: 5.5000, nothing: 6.0000)\n" in report


def test_what_else_an_evaluation_found_is_told_but_not_layer_by_layer(logged: Path) -> None:
    (logged / "text" / "train_log.csv").write_text(
        "step,val_loss,val_accuracy,val_firing_rate_0,val_note\n1,4.0,0.75,0.1,a\n2,3.0,0.5,0.1,\n3,,,,\n"
    )
    report = final_report(load("text"), first_step=0, seconds=9.0, baselines={})
    assert "  val accuracy   best 0.7500, last 0.5000\n" in report
    assert "rate" not in report
    assert "note" not in report


def test_a_run_that_was_stopped_early_goes_on_with_more_patience(runs: Path) -> None:
    x = torch.ones(8, 4)
    options = {"max_step": 50, "eval_step_interval": 1, "early_stop_patience": 1, "lr": 0.0, "device": "cpu"}
    run = fit(made(), (x, x[:, :1]), (x, x[:, :1]), loss=mse_loss, name="early", **options)
    report = final_report(run, first_step=0, seconds=9.0, baselines={})
    assert "train resume=early trainer.early_stop_patience=0" in report
    assert "max_step=" not in report
    assert "trainer.max_step=" in final_report(load("text"), first_step=0, seconds=9.0, baselines={})


def test_the_speed_is_that_of_the_steps_this_training_made(logged: Path) -> None:
    def speed(first_step: int, seconds: float) -> str:
        report = final_report(load("text"), first_step=first_step, seconds=seconds, baselines={})
        return re.search(r"speed +(.*)", report)[1]  # type: ignore[index]

    assert speed(0, 9.0) == "2.0 steps/s, 9.0 s in all", "three steps in the 1.5 s between the first row and the last"
    assert speed(2, 9.0) == "2.0 steps/s, 9.0 s in all"
    assert speed(3, 4.0) == "4.0 s/step, 4.0 s in all", "one row: one step in all the time"
    (logged / "text" / "train_log.csv").write_text("reward\n1\n")
    assert speed(0, 4.0) == "1.0 steps/s, 4.0 s in all", "a log of other columns"


def test_the_commands_to_go_on_are_whole_for_any_name(logged: Path) -> None:
    (logged / "text").rename(logged / "it's a run")
    report = final_report(load("it's a run"), first_step=0, seconds=1.0, baselines={})
    predict, start, resume = report.splitlines()[-3:]
    name = "'it'\"'\"'s a run'"
    assert predict.endswith(f' predict {name} "The import statement"')
    assert start.endswith(" start")
    assert resume.endswith(f" train resume={name} trainer.max_step=8")


def test_a_stopped_run_says_its_step_and_resume_hint(runs: Path) -> None:
    first, second = resume_hint(load("text")).splitlines()
    assert first == "text: finished at step 4 of 4; resume with"
    assert second.endswith("darkit train resume=text")
    for path in (runs / "text").glob("iter-*"):
        path.unlink()
    assert resume_hint(load("text")) == "text: stopped before its first checkpoint."


def test_the_command_is_what_this_shell_would_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin")
    assert darkit_command() == "darkit"
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert darkit_command() == str(folder / "darkit")
    monkeypatch.chdir(folder.parent.parent)
    assert darkit_command() == str(folder.relative_to(folder.parent.parent) / "darkit")
    (tmp_path / "darkit").write_text("#!/bin/sh\n")
    (tmp_path / "darkit").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert darkit_command().endswith("/darkit"), "another one of that name would be found"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "some where" / "python3"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert darkit_command() == f"'{tmp_path}/some where/python3' -m darkit"
