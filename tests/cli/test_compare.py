"""``darkit compare``: over seeds, at a terminal and for a paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from darkit.runs import files
from tests.cli.parts import done, refused
from tests.runs.experiments import make_run


@pytest.fixture
def root(home: Path) -> Path:
    where = home / "base"
    for seed, (small, large) in enumerate([(1.0, 0.97), (1.1, 1.08), (1.2, 1.17)]):
        make_run(where, f"small_1-seed={seed}", [2.0, small], seed=seed)
        make_run(where, f"large-seed={seed}", [2.0, large], seed=seed, lr=3e-4)
    make_run(where, "large-seed=3", [1.0], seed=3, lr=3e-4, state="crashed")
    return where


def test_it_prints_means_intervals_the_test_and_a_sentence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = done(capsys, "compare", "small_1", "large").splitlines()
    assert lines[0].split("  ")[0] == "val_loss"
    small, large = (line.split() for line in lines[1:3])
    assert small[:4] == ["small_1", "3", "1.1", "0.1"]
    assert " ".join(small[4:6]) == "[0.85159, 1.3484]"
    assert large[:3] == ["large", "3", "1.0733"]
    assert lines[4].split()[:2] == ["large", "-0.026667"]
    assert "paired t" in lines[4]
    assert lines[5].startswith("large is better than small_1 by 0.02667: more than noise at 3 seeds (paired t-test")
    assert lines[6] == "Left out of large: large-seed=3, it is crashed."


def test_without_groups_all_are_compared_and_one_alone_is_only_described(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "more than noise" in done(capsys, "compare", "--at", "2")
    assert "noise" not in done(capsys, "compare", "small_1", "--at", "last")


def test_the_tables_are_there_for_documents_and_programs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = done(capsys, "compare", "small_1", "large", "--format", "markdown").splitlines()
    assert lines[0].startswith("| val\\_loss | runs | mean | std |")
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2].startswith("| small\\_1 | 3 | 1.1 | 0.1 | \\[0.85159, 1.3484\\] |")
    text = done(capsys, "compare", "small_1", "large", "--format", "latex")
    assert "\\begin{tabular}{lrrrrr}\n\\toprule\nval\\_loss & runs & mean & std & 95\\% CI (t)" in text
    assert "small\\_1 & 3 & 1.1 & 0.1 & {[}0.85159, 1.3484] & " in text
    assert "\n% large is better than small_1 by 0.02667" in text
    found = json.loads(done(capsys, "compare", "small_1", "large", "--format", "json"))
    assert [one["count"] for one in found["groups"]] == [3, 3]
    assert found["contrasts"][0]["paired"] is True


def test_a_fork_is_said_to_be_one_below_the_tables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, changes in enumerate([{"lr": [1e-3, 3e-4]}, {}]):
        path = root / f"large-seed={seed}" / files.RUN
        fork = {"parent": "small_1-seed=0", "checkpoint": "iter-4-ckpt", "changes": changes}
        files.write_json(path, {**files.read_json(path), "fork": fork})
    lines = done(capsys, "compare", "small_1", "large-*").splitlines()
    assert lines[-2:] == [
        "large-seed=0: fork of small_1-seed=0:iter-4, lr 0.001 -> 0.0003",
        "large-seed=1: fork of small_1-seed=0:iter-4, with its settings",
    ]


def test_wrong_arguments_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--confidence must be from 0.5" in refused(capsys, "compare", "--confidence", "95")
    assert "--at must be" in refused(capsys, "compare", "small_1", "--at", "first")
    assert "neither a run" in refused(capsys, "compare", "nope")
