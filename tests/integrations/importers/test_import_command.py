"""``darkit import``: what the command finds, what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import darkit
from darkit.cli.main import main
from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.pages.parts import state_word
from darkit.dashboard.pages.run import commands, run_page
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.view import read_address
from darkit.errors import ConfigError, SourceError
from darkit.integrations.importers import content
from darkit.integrations.importers.names import valid_name
from darkit.runs import base, files, list_runs, load
from darkit.runs.lock import RunLock
from darkit.runs.names import is_name
from darkit.runs.notes import read_notes
from tests.integrations.importers.parts import command, imported, points, tree


def make_log(folder: Path, rows: str = "1,0.5\n2,0.25\n") -> Path:
    """Makes the smallest log that is recognised, one of Lightning's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(f"step,loss\n{rows}")
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return make_log(tmp_path / "logs" / "one")


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(log, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "would be imported:  one (lightning, 2 rows, unknown)" in said
    assert "Nothing was written" in said
    assert not base().exists()
    assert command(log) == 0
    make_log(log, "1,0.5\n2,0.25\n3,0.1\n")
    before = tree(base())
    assert command(log, "--dry-run") == 0
    assert "would be updated:  one (lightning, +1 rows, unknown)" in capsys.readouterr().out
    assert tree(base()) == before


def test_names_are_made_valid_and_numbered(tmp_path: Path) -> None:
    for place in ("a", "b"):
        make_log(tmp_path / place / "same")
        imported(tmp_path / place / "same")
    assert {run.name for run in list_runs()} == {"same", "same-2"}


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        ".",
        "..",
        "../../x",
        "a/b\\c:d",
        "\x1b[31mred\n",
        " spaced ",
        ".hidden",
        "-x",
        "x" * 300,
        "名" * 200,
        "\u202e",
        "\ud800",
    ],
)
def test_any_name_becomes_a_valid_one(wanted: str) -> None:
    assert is_name(valid_name(wanted))


def test_name_and_tags_of_the_user(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(log, "--name", "mine", "--tag", "old", "--tag", "a b") == 0
    assert read_notes(load("mine").path).tags == ("old", "a b")
    assert command(log, "--name", "other", "--tag", "new") == 0  # it is imported already: its tags grow
    assert [run.name for run in list_runs()] == ["mine"]
    assert read_notes(load("mine").path).tags == ("old", "a b", "new")
    make_log(tmp_path / "logs" / "two")
    assert command(tmp_path / "logs", "--name", "x") == 0
    assert {run.name for run in list_runs()} == {"mine", "x-logs-two"}
    capsys.readouterr()
    assert command(log, "--tag", "x" * 100) == 2
    assert command(log, "--name", "a/b") == 2


def test_a_log_that_was_moved_is_recognised_and_a_copy_is_a_run_of_its_own(log: Path, tmp_path: Path) -> None:
    imported(log)
    moved = log.rename(tmp_path / "moved")
    assert [outcome.action for outcome in imported(moved)] == ["unchanged"]
    log = Path(shutil.copytree(moved, log))
    imported(log)
    copy = Path(shutil.copytree(log, tmp_path / "copy"))
    assert [(outcome.name, outcome.action) for outcome in imported(copy)] == [("copy", "imported")]


def test_a_file_of_a_folder_that_is_a_log_stands_for_the_folder(log: Path) -> None:
    (log / "hparams.yaml").write_text("lr: 0.1\n")
    imported(log / "metrics.csv")
    assert load("one").config == {"lr": 0.1}
    assert [outcome.action for outcome in imported(log)] == ["unchanged"]


def test_a_run_that_was_renamed_or_deleted(log: Path) -> None:
    imported(log)
    load("one").path.rename(base() / "renamed")
    make_log(log, "1,0.5\n2,0.25\n3,0.1\n")
    assert [(outcome.name, outcome.action) for outcome in imported(log)] == [("renamed", "updated")]
    shutil.rmtree(base() / "renamed")
    assert [(outcome.name, outcome.action) for outcome in imported(log)] == [("one", "imported")]


def test_what_a_person_has_written_about_a_run_stays(log: Path) -> None:
    imported(log, tags=["first"])
    run = load("one")
    files.write_json(run.path / files.RUN, run.info | {"project": "mine"})
    make_log(log, "1,0.5\n2,0.25\n3,0.1\n")
    imported(log)
    assert (load("one").info["project"], load("one").info["id"]) == ("mine", run.info["id"])
    assert read_notes(run.path).tags == ("first",)


def test_values_that_changed_at_the_source_are_changed(log: Path) -> None:
    imported(log)
    make_log(log, "1,0.75\n")
    imported(log)
    assert points(load("one")) == {"loss": [(1, 0.75)]}


def test_an_import_that_was_interrupted_leaves_no_run_and_is_done_again(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(content, "_status", interrupt)
        assert command(log) == 130
    assert list(base().iterdir()) == []
    killed = base() / next(iter(_beside(log)))  # as a killed process leaves it
    (killed / "media").mkdir(parents=True)
    (killed / files.LOG).write_text("step,loss\n9,9\n")
    assert list_runs() == []
    assert command(log) == 0
    assert [path.name for path in base().iterdir()] == ["one"]
    assert points(load("one")) == {"loss": [(1, 0.5), (2, 0.25)]}


def _beside(log: Path) -> set[str]:
    """Returns the names that an import makes first, seen while it holds one of them."""
    seen: set[str] = set()
    status = content._status

    def look(*arguments: object) -> object:
        seen.update(path.name for path in base().iterdir())
        raise SourceError("enough")

    content._status = look  # type: ignore[assignment]
    try:
        with pytest.raises(SourceError):
            imported(log)
    finally:
        content._status = status
    return seen


def test_a_link_in_the_place_of_an_interrupted_import_is_refused(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("x")
    (base() / next(iter(_beside(log)))).symlink_to(tmp_path / "theirs")
    assert command(log) == 1
    assert "is a link" in capsys.readouterr().err
    assert tree(tmp_path / "theirs").keys() == {"file"}


def test_two_imports_of_one_log_do_not_meet(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = base() / next(iter(_beside(log)))
    folder.mkdir()
    lock = RunLock(folder)
    assert command(log) == 1
    assert "Another process is importing" in capsys.readouterr().err
    lock.release()
    assert command(log) == 0


def test_unknown_paths_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for path, words in (("missing", "does not exist"), ("empty", "Nothing below"), ("file.txt", "Nothing below")):
        assert command(tmp_path / path) == 2
        assert words in capsys.readouterr().err


def test_a_run_of_darkit_and_a_repository_of_aim_are_said(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(log)
    assert command(base()) == 1
    assert "is a run of darkit already" in capsys.readouterr().out
    (tmp_path / "aim" / ".aim" / "meta").mkdir(parents=True)
    assert command(tmp_path / "aim") == 1
    assert "only Aim can read" in capsys.readouterr().out


def test_one_bad_log_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_log(tmp_path / "logs" / "good")
    (tmp_path / "logs" / "bad").mkdir()
    (tmp_path / "logs" / "bad" / "x.wandb").write_bytes(b":W&B\xe1\xbe\0torn")
    assert command(tmp_path / "logs") == 1
    assert {run.name for run in list_runs()} == {"logs-good"}
    assert "1 imported, 1 not readable" in capsys.readouterr().out


def test_names_and_texts_of_a_log_cannot_steer_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "\x1b[31mred"
    make_log(folder)
    (folder / "metrics.csv").write_text('step,"lo\x1b[2Jss","\n","time","step"\n1,2,3,4,5\n')
    (folder / "hparams.yaml").write_text('"\\e[31m": "\\e]0;x\\a"\n')
    assert command(folder) == 0
    (run,) = list_runs()
    assert main(["show", run.name]) == 0
    assert main(["runs"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\x1b" not in run.name
    assert all(column.isprintable() for column in run.log().columns)


def test_an_imported_run_is_shown_and_not_resumed(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(log)
    library = Library(base(), LogCache())
    facts = library.facts("one")
    assert (facts.state, facts.problem) == ("unknown", "")
    assert (state_word(facts.state, "en"), state_word(facts.state, "zh")) == ("unknown", "未知")
    assert state_word("odd", "zh") == "odd"
    assert dict(commands(facts, "en")) == {"Export the log": "darkit export one --format csv"}
    for language in ("en", "zh"):
        shown = Charts(library).chosen(["one"], "log")[0]
        assert run_page(language, shown, read_address("/run/one")[1])
        assert list(shown.series) == ["loss"]
    assert main(["show", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["info"]["origin"]["kind"] == "lightning"
    assert main(["show", "one"]) == 0
    assert "from lightning" in capsys.readouterr().out
    assert darkit.load("one").origin["path"] == str(log)


def test_nothing_trains_into_an_imported_run(log: Path) -> None:
    import torch

    imported(log)
    before = tree(base())
    data = torch.zeros(4, 1), torch.zeros(4, 1)
    for resume in (True, "auto", "one"):
        with pytest.raises(ConfigError, match="was imported from lightning"):
            darkit.fit(torch.nn.Linear(1, 1), data, max_step=1, name="one", resume=resume)
    with pytest.raises(darkit.errors.ModelError, match="imported from lightning"):
        from darkit.prediction.rebuild import build_model

        build_model(load("one"))
    assert tree(base()) == before


def test_importing_loads_neither_torch_nor_the_packages_of_the_logs(log: Path) -> None:
    script = """
import sys
from darkit.cli.main import main
code = main(["import", sys.argv[1]])
heavy = {"torch", "lightning", "transformers", "wandb", "mlflow", "trackio", "hydra", "tensorboard"}
print(code, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(log)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_folder_whose_name_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/logs \xff\nx"))
    make_log(folder)
    for _ in range(2):
        assert command(folder) == 0
    assert [run.name for run in list_runs()] == ["logs x"]
    assert "unchanged  logs x" in capsys.readouterr().out
    assert main(["show", "logs x"]) == 0
