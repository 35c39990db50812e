"""``darkit du``, ``prune``, ``rm``, ``restore`` and ``mv`` on runs that were trained."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from darkit.cli.main import main
from darkit.runs import files, load
from darkit.runs.lock import RunLock
from tests.cli.parts import done, names, refused


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache directory, which holds copies of other homes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def steps(name: str) -> list[int]:
    return [checkpoint.step for checkpoint in load(name).checkpoints()]


def age(folder: Path) -> None:
    """Make a run a year old."""
    status = files.read_json(folder / files.STATUS)
    then = status["heartbeat"] - 365 * 86400
    files.write_json(folder / files.STATUS, {**status, "heartbeat": then})
    for path in folder.iterdir():
        os.utime(path, (then, then))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(text))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)


def test_a_renamed_run_resumes_with_its_seal_and_one_that_runs_is_refused(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert done(capsys, "mv", "numbers", "digits") == "Renamed numbers to digits.\n"
    assert names(runs) == {"text", "digits"}
    assert load("digits").info["name"] == "digits"
    assert load("digits").trainer_config["name"] == "digits"
    assert main(["train", "resume=digits", "trainer.max_step=6"]) == 0
    assert (names(runs), load("digits").details.step) == ({"text", "digits"}, 6)
    assert "already exists" in refused(capsys, "mv", "digits", "text")
    assert "no run 'numbers'" in refused(capsys, "mv", "numbers", "other")
    assert "run name '../x'" in refused(capsys, "mv", "digits", "../x")
    lock = RunLock(runs / "digits")
    assert "is already being trained" in refused(capsys, "mv", "digits", "other")
    lock.release()


def test_runs_move_to_the_trash_and_back(runs: Path, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert "no run 'nope'" in refused(capsys, "rm", "text", "nope")
    lock = RunLock(runs / "numbers")
    sentence = refused(capsys, "rm", "text", "numbers")
    lock.release()
    assert sentence == "The run 'numbers' is running. Stop it first: darkit stop numbers"
    assert names(runs) == {"text", "numbers"}  # not even the one that could go
    assert len(done(capsys, "rm", "text", "text", "numbers").splitlines()) == 2
    assert names(runs) == set()
    listed = json.loads(done(capsys, "restore", "--json"))
    assert {row["name"] for row in listed} == {"text", "numbers"}
    assert all(row["bytes"] > 1000 for row in listed)
    head, *rows = done(capsys, "restore").splitlines()
    assert head.split() == ["name", "deleted", "size", "deletion"]
    assert {row.split()[0] for row in rows} == {"text", "numbers"}
    assert done(capsys, "restore", "text").startswith("Restored text, deleted ")
    assert load("text").status == "finished"
    done(capsys, "rm", "text")
    done(capsys, "restore", "text", "--as", "again")
    assert load("again").info["name"] == "again"
    assert "Name the run" in refused(capsys, "restore", "--as", "x")
    assert "no terminal" in refused(capsys, "rm", "--empty-trash")
    assert "nothing to delete" in done(capsys, "rm", "--empty-trash", "--yes", "--older-than", "1d")
    assert done(capsys, "rm", "--empty-trash", "--yes").startswith("Deleted 1 run for good")
    assert done(capsys, "restore") == "The trash is empty.\n"
    assert (names(runs), names(home / ".trash")) == ({"again"}, set())
    assert "The trash has no run 'numbers'" in refused(capsys, "restore", "numbers")
    for words in (("rm",), ("rm", "again", "--empty-trash"), ("rm", "again", "--older-than", "1d")):
        refused(capsys, *words)


def test_prune_shows_asks_and_then_deletes_what_it_showed(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = load("numbers").checkpoints()[0].size
    age(runs / "numbers")
    words = ("prune", "--older-than", "30d")
    shown = done(capsys, *words, "--dry-run").splitlines()
    assert shown[0].startswith("numbers: iter-2-ckpt, ")
    assert shown[-1].startswith("Would go: 1 checkpoint of 1 run, ")
    assert main(words) == 2
    assert "There is no terminal to answer at: add --yes." in capsys.readouterr().err
    answer(monkeypatch, "n\n")
    assert main(words) == 1
    assert capsys.readouterr().out.endswith("Go on? [y/N] Nothing was deleted.\n")
    assert steps("numbers") == [2, 4]
    monkeypatch.undo()
    monkeypatch.setenv("DARWIN_KIT_HOME", str(runs.parent))
    found = json.loads(done(capsys, *words, "--yes", "--json"))
    assert found["bytes"] == size
    assert found["runs"] == [{"name": "numbers", "checkpoints": ["iter-2-ckpt"], "bytes": size, "damaged": []}]
    assert found["kept"] == [{"name": "text", "reason": "it is younger"}]
    assert (steps("numbers"), steps("text")) == ([4], [2, 4])
    assert "--json asks no questions" in refused(capsys, *words, "--json")
    assert "--keep-last must be at least 1" in refused(capsys, *words, "--keep-last", "0")
    assert "leave out" in refused(capsys, *words, "--runs", "--keep-best", "1")
    assert done(capsys, *words, "--runs", "--yes").splitlines()[-1].startswith("Done: 1 run to the trash")
    assert names(runs) == {"text"}
    first, last = (checkpoint.path for checkpoint in load("text").checkpoints())
    good = last.read_bytes()
    last.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    age(runs / "text")
    assert main([*words, "--yes"]) == 1
    assert "text: kept, its other checkpoints are damaged\n" in capsys.readouterr().out
    last.write_bytes(good)
    first.write_bytes(good[:-1])
    age(runs / "text")
    assert done(capsys, *words, "--yes").startswith("text: iter-2-ckpt (damaged), ")
    assert steps("text") == [4]


def test_runs_move_to_projects_by_which_they_are_pruned_and_trials_stay_with_their_sweep(
    runs: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    for name in ("numbers", "text"):
        age(runs / name)
    assert done(capsys, "mv", "numbers", "--project", "digits") == "Moved numbers to the project digits.\n"
    assert [row["name"] for row in json.loads(done(capsys, "runs", "--project", "digits", "--json"))] == ["numbers"]
    words = ("prune", "--older-than", "30d")
    found = json.loads(done(capsys, *words, "--project", "digits", "--yes", "--json"))
    assert [row["name"] for row in found["runs"]] == ["numbers"]
    assert (steps("numbers"), steps("text")) == ([4], [2, 4])
    assert "Did you mean 'digits'" in refused(capsys, *words, "--project", "digit", "--dry-run")
    assert "a project is" in refused(capsys, "mv", "numbers", "--project", "a/b")
    assert "either the new name" in refused(capsys, "mv", "numbers")
    assert "either the new name" in refused(capsys, "mv", "numbers", "x", "--project", "y")
    assert done(capsys, "mv", "numbers", "--project", "") == "numbers belongs to no project.\n"

    (home / "sweeps" / "wide").mkdir(parents=True)
    files.write_json(runs / "text" / files.RUN, {**load("text").info, "sweep": {"name": "wide", "trial": 3}})
    assert "belongs to the sweep 'wide'" in refused(capsys, "mv", "text", "other")
    found = json.loads(done(capsys, *words, "--runs", "--yes", "--json"))
    assert found["kept"] == [{"name": "text", "reason": "it belongs to the sweep 'wide'"}]
    assert names(runs) == {"text"}
    (home / "sweeps" / "wide").rmdir()
    assert done(capsys, "mv", "text", "other") == "Renamed text to other.\n"


@pytest.mark.parametrize("wrong", ["30", "d", "1m", "-1d", "1e3d"])
def test_an_age_without_a_known_unit_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prune", f"--older-than={wrong}"])
    assert ended.value.code == 2
    assert f"such as 12h or 30d, not '{wrong}'" in capsys.readouterr().err


def test_du_tells_the_sizes_of_runs_of_the_trash_and_of_the_rest(
    runs: Path, capsys: pytest.CaptureFixture[str], home: Path, cache: Path
) -> None:
    done(capsys, "rm", "text")
    (cache / "darkit" / "homes" / "x").mkdir(parents=True)
    (cache / "darkit" / "homes" / "x" / "state.json").write_bytes(b"x" * 700)
    (home / "data").mkdir()
    (home / "data" / "shard").write_bytes(b"x" * 5000)
    (runs / "\x1b[31mred").mkdir()
    found = json.loads(done(capsys, "du", "--json"))
    assert [row["name"] for row in found["runs"]] == ["numbers", "\x1b[31mred"]
    row = found["runs"][0]
    assert row["checkpoints"] >= sum(checkpoint.size for checkpoint in load("numbers").checkpoints())
    assert row["total"] == sum(size for kind, size in row.items() if kind not in ("name", "total"))
    assert found["home"]["data"] == 5000
    assert found["total"] == row["total"] + found["trash"] + 700 + sum(found["home"].values())
    shown = done(capsys, "du")
    assert "\x1b" not in shown
    assert shown.splitlines()[0].split() == ["name", "total", "checkpoints", "log", "tensorboard", "media", "rest"]
    assert "data  5.0 kB" in shown
    assert "copies of other homes  700 bytes" in shown
    assert done(capsys, "du", "numbers").splitlines()[-1].startswith("1 run, ")
    assert "no run 'text'" in refused(capsys, "du", "text")
