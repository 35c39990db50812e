"""``darkit runs``: every run, its last values, on any width."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from darkit.cli.main import main
from darkit.cli.runs import RunTable
from darkit.core.active import start_run
from darkit.runs import files, load
from darkit.runs.listing import facts_of
from darkit.runs.notes import set_project
from tests.cli.parts import done, refused


def test_there_is_a_row_for_each_run_newest_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "half-made").mkdir()  # no run yet
    for name, order in (("text", 1), ("numbers", 2)):
        files.write_json(runs / name / files.RUN, {**load(name).info, "created": order})
    head, first, second, where = done(capsys, "runs").splitlines()
    assert head.split() == ["name", "state", "model", "step", "train", "loss", "val", "loss", "started"]
    assert first.split()[:4] == ["numbers", "finished", "MyModel", "4/4"]
    assert second.split()[:4] == ["text", "finished", "GPT", "4/4"]
    log = load("text").log()
    assert second.split()[4:6] == [f"{log['train_loss'][-1]:.4g}", f"{log['val_loss'][-1]:.4g}"]
    assert where == f"in {runs}"


def test_the_last_loss_is_shown_though_the_last_row_has_none(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = runs / "text" / "train_log.csv"
    header = log.read_text().splitlines()[0].split(",")
    with log.open("a") as file:
        file.writelines(",".join("9" if name == "step" else "" for name in header) + "\n" for _ in range(50))
    row = next(row for row in json.loads(done(capsys, "runs", "--json")) if row["name"] == "text")
    frame = load("text").log()
    assert row["val_loss"] == frame["val_loss"].drop_nulls()[-1]
    assert row["train_loss"] == frame["train_loss"].drop_nulls()[-1]


def test_json_has_all_of_it_for_programs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "text", runs / "模型")
    rows = {row["name"]: row for row in json.loads(done(capsys, "runs", "--json"))}
    assert set(rows) == {"text", "numbers", "模型"}
    row = rows["numbers"]
    assert row["created"] == pytest.approx(load("numbers").info["created"])
    del row["created"], row["train_loss"], row["val_loss"]
    assert row == {
        "name": "numbers",
        "state": "finished",
        "reason": "",
        "model": "MyModel",
        "project": "",
        "step": 4,
        "max_step": 4,
        "path": str(runs / "numbers"),
    }


def test_without_any_run_it_says_where_they_would_be(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert done(capsys, "runs") == f"No runs yet in {home / 'base'}. `darkit train` makes one.\n"
    assert json.loads(done(capsys, "runs", "--json")) == []
    assert not home.exists()


def test_a_run_whose_files_are_damaged_is_listed_with_what_is_left(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "text" / "status.json").write_text("{")
    (runs / "text" / "train_log.csv").write_text("step,train_loss\n1,abc\n")
    (runs / "text" / "run.json").write_text("{}")
    (row,) = [line for line in done(capsys, "runs").splitlines() if line.startswith("text")]
    assert row.split()[:3] == ["text", "crashed", "0/?"]


def test_a_log_that_cannot_be_read_hides_no_other_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "text" / "train_log.csv").write_bytes(b"step," + b"x" * 2**20 + b"\n1,2\n")
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    assert "Warning: Cannot read the log " in err
    rows = out.splitlines()
    assert {row.split()[0] for row in rows[1:-1]} == {"numbers", "text"}


def test_a_name_is_never_cut_where_nobody_looks_at_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "n" * 100
    shutil.copytree(runs / "text", runs / long)
    assert any(line.startswith(f"{long}  finished") for line in done(capsys, "runs").splitlines())


@pytest.mark.parametrize("width", [30, 45, 60, 80, 100, 200])
def test_a_narrow_terminal_gets_fewer_columns_and_whole_names(width: int, runs: Path) -> None:
    shutil.copytree(runs / "text", runs / ("l" * 34))
    console = Console(width=width, force_terminal=True, color_system=None, highlight=False)
    table = RunTable([facts_of(path) for path in runs.iterdir()])
    with console.capture() as captured:
        console.print(table, crop=False)
    lines = captured.get().splitlines()
    assert max(cell_len(line.rstrip()) for line in lines) <= width, lines
    assert "…" not in captured.get()
    shown = "".join(line.split()[0] for line in lines if line.startswith("l"))
    assert shown == "l" * 34
    assert ("model" in lines[0]) == (width >= 100)
    assert ("val loss" in lines[0]) == (width >= 60)
    assert "state" in lines[0]


def test_a_finished_run_of_unknown_length_has_its_last_step(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run("loop") as run:
        run.log({"loss": 1.0}, step=7)
    row = next(line for line in done(capsys, "runs").splitlines() if line.startswith("loop"))
    assert row.split()[:3] == ["loop", "finished", "7"]


def test_runs_are_listed_by_project_and_the_column_is_there_only_if_one_has_any(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "project" not in done(capsys, "runs").splitlines()[0]
    set_project(runs / "text", "language")
    head, *rows = done(capsys, "runs").splitlines()
    assert "project" in head.split()
    assert {line.split()[0]: "language" in line.split() for line in rows[:2]} == {"text": True, "numbers": False}
    (row,) = json.loads(done(capsys, "runs", "--project", "language", "--json"))
    assert (row["name"], row["project"]) == ("text", "language")
    said = refused(capsys, "runs", "--project", "langauge")
    assert "No run belongs to the project 'langauge'. Did you mean 'language'?" in said
    assert "The project 'a/b' holds a character" in refused(capsys, "runs", "--project", "a/b")


def test_names_of_wide_characters_keep_the_columns_in_line(runs: Path) -> None:
    shutil.copytree(runs / "text", runs / "模型一号")
    console = Console(width=100, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(RunTable([facts_of(path) for path in runs.iterdir()]), crop=False)
    head, *rows = captured.get().splitlines()
    assert {cell_len(row[: row.index("finished")]) for row in rows} == {head.index("state")}


def test_a_list_loads_neither_polars_nor_other_commands() -> None:
    script = """
import sys
from darkit.cli.main import main
main(["runs"])
print(sorted({"polars", "numpy", "filelock", "darkit.cli.predict", "darkit.cli.import_"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1] == "[]"
