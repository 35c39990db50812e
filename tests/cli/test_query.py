"""``darkit query``: the runs that a query asks for, as a table, names or JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import darkit
from darkit.errors import QueryError
from darkit.runs.notes import Notes, write_notes
from darkit.runs.numbers import number_text
from tests.cli.parts import done, refused
from tests.dashboard.parts import loss_at, make_run


@pytest.fixture
def three(home: Path) -> Path:
    for seed in range(3):
        make_run(home / "base", f"run-{seed}", 20, seed=seed, lr=10.0**-seed)
    write_notes(home / "base" / "run-2", Notes(archived=True))
    return home


def test_the_runs_are_printed_as_a_table_names_or_json(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert done(capsys, "query", "lr<0.5", "--names").split() == ["run-1"]
    assert done(capsys, "query", "", "--names", "--archived").split() == ["run-2", "run-1", "run-0"]
    (run,) = json.loads(done(capsys, "query", "lr=0.1", "--json"))
    assert run["name"] == "run-1"
    assert run["metrics"]["train_loss"]["last"] == loss_at(20, 20, 1)
    assert run["config"]["trainer.lr"] == 0.1
    table = done(capsys, "query", "lr<=1 best:train_loss<9").splitlines()
    assert table[0].split() == ["name", "state", "step", "metric", "last", "best", "lr", "best:train_loss"]
    assert table[1].split()[0] == "run-1"
    assert table[1].split()[6] == "0.1"
    assert table[-1] == "2 runs"
    assert done(capsys, "query", "lr>5") == "0 runs\n"
    assert done(capsys, "query", "", "--home", str(three / "other"), "--json") == "[]\n"


def test_the_best_value_of_a_run_that_diverged_is_marked(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(three / "base", "lost", 20, seed=9, losses=dict.fromkeys(range(15, 21), math.nan))
    first, second = done(capsys, "query", "lr=0.1 or name:lost").splitlines()[1:3]
    assert first.split()[3:7] == ["train_loss", "NaN", number_text(loss_at(14, 20, 9)), "⚠"]
    assert second.split()[3:5] == ["train_loss", number_text(loss_at(20, 20, 1))]
    assert "⚠" not in second


def test_in_python_a_query_gives_the_same_runs(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for query in ("", "lr<0.5", "lr>5", "run-0 or lr=0.1"):
        names = done(capsys, "query", query, "--names").split()
        assert [run.name for run in darkit.query(query)] == names
    (run,) = darkit.query("train_loss<9 lr=0.1", root=three / "base")
    assert run.log()["train_loss"][-1] == loss_at(20, 20, 1)
    with pytest.raises(QueryError, match="Did you mean"):
        darkit.query("trainloss<1")


def test_the_list_of_runs_is_filtered_by_the_same_query(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = done(capsys, "runs", "lr<=1", "state:finished").splitlines()  # archived ones too, as without a query
    assert lines[0].split()[:3] == ["name", "state", "model"]
    assert [line.split()[0] for line in lines[1:-1]] == ["run-2", "run-1", "run-0"]
    assert [one["name"] for one in json.loads(done(capsys, "runs", "--json", "lr<0.5 -lr=0.01"))] == ["run-1"]
    assert done(capsys, "runs", "lr>5").startswith("No run in ")
    away = f"file://{three}"
    assert [one["name"] for one in json.loads(done(capsys, "runs", "lr=0.1", "--home", away, "--json"))] == ["run-1"]
    assert "Did you mean" in refused(capsys, "runs", "trainloss<1")


def test_a_query_that_cannot_be_read_is_one_sentence(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "closed" in refused(capsys, "query", "(lr=1", "--json")
    assert "Did you mean" in refused(capsys, "query", "trainloss<1")
