"""What a sweep prints of its trials, also of settings that look like something else."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from darkit.cli.sweep_report import report, tell_trials
from darkit.runs import base, files
from darkit.sweep.folder import JOURNAL, Definition, SweepFolder
from darkit.sweep.journal import Journal
from darkit.sweep.progress import Progress
from darkit.sweep.sampling import Suggestion
from darkit.sweep.settings import SweepSettings
from darkit.sweep.space import split_space

SPACE = split_space(["data.state='[/tmp/x]','[bold]b'", "model.config.step=1,2"])[1]
WHAT = Definition("s", (), tuple(SPACE), SweepSettings(), facts={"objective": "val_[/x]", "direction": "min"})


def trial(folder: SweepFolder, runs: list[str]) -> Journal:
    journal = Journal(folder.path / JOURNAL, "s", "min")
    params = {dimension.key: dimension.choices[0] for dimension in SPACE}
    distributions = {dimension.key: dimension.distribution() for dimension in SPACE}
    journal.add(Suggestion(params, {}), distributions, params, runs)
    journal.finish(0, 0.5)
    return journal


def test_settings_are_shown_as_they_are_beside_the_columns(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = SweepFolder("s")
    with folder.locked():
        trials = trial(folder, ["s-1"]).trials()
        progress = Progress(folder, WHAT, 1, tell_trials(1))
        progress.settle(0, 0.5, None, trials)
        report(WHAT, progress, trials)
    told, header, line = capsys.readouterr().out.splitlines()[:3]
    assert "finished" in told
    assert "data.state='[/tmp/x]' model.config.step=1" in told
    assert header.split() == ["trial", "state", "step", "val_[/x]", "data.state", "model.config.step", "runs"]
    assert line.split() == ["0", "finished", "0", "0.5", "'[/tmp/x]'", "1", "s-1"]
    with (folder.path / "trials.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["state"], row["data.state"]) == ("finished", "'[/tmp/x]'")


def test_a_group_of_seeds_is_shown_without_the_runs_that_were_removed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = replace(WHAT, seeds=(0, 1), facts={"objective": "val_loss", "direction": "min"})
    folder = SweepFolder("s")
    with folder.locked():
        trials = trial(folder, ["s-1-seed=0", "s-1-seed=1"]).trials()
    report(what, Progress(folder, what, 1), trials)
    assert "val_loss: the runs of all 2 seeds have been removed" in capsys.readouterr().out
    kept = base() / "s-1-seed=1"
    kept.mkdir(parents=True)
    (kept / files.LOG).write_text("step,val_loss\n1,0.5\n")
    report(what, Progress(folder, what, 1), trials)
    assert "val_loss: mean 0.5 ± 0 over 1 seeds (0.5); 1 removed" in capsys.readouterr().out
