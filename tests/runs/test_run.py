from __future__ import annotations

import inspect
import os
import time
from pathlib import Path
from typing import Any

import pytest

import darkit
from darkit.errors import NameInvalidError, RunNotFoundError, StorageError
from darkit.runs import Run, base, files, list_runs, load
from darkit.runs.lock import RunLock
from darkit.runs.log import CsvLog
from darkit.runs.status import StatusWriter


def make(name: str, root: Path | None = None, **facts: Any) -> Run:
    folder = (root or base()) / name
    folder.mkdir(parents=True)
    files.write_json(folder / "run.json", facts)
    return Run(folder)


def made_at(run: Run, second: float) -> None:
    files.write_json(run.path / "run.json", {**run.info, "created": second})


def test_a_handle_tells_what_is_in_the_run_directory() -> None:
    run = make("gpt", id="abc", series={"loss": ["step", "train_loss"]})
    files.write_json(run.path / "config.json", {"width": 4})
    files.write_json(run.path / "trainer_config.json", {"lr": 0.1})
    CsvLog(run.path / "train_log.csv").append([{"step": 1, "train_loss": 0.5}])
    (run.path / "iter-1-ckpt.pth").write_bytes(b"x")
    lock = RunLock(run.path)
    writer = StatusWriter(run.path, 9, lambda: 1)
    assert (run.name, run.path, run.status) == ("gpt", base() / "gpt", "running")
    assert repr(run) == f"Run('gpt', running, step 1, {str(run.path)!r})"
    assert (run.details.step, run.details.max_step) == (1, 9)
    assert run.info == {"id": "abc", "series": {"loss": ["step", "train_loss"]}}
    assert run.config == {"width": 4}
    assert run.trainer_config == {"lr": 0.1}
    assert run.series == {"loss": ["step", "train_loss"]}
    assert run.log()["train_loss"].to_list() == [0.5]
    latest = run.latest_checkpoint()
    assert latest is not None
    assert run.checkpoints() == [latest]
    assert latest.name == "iter-1-ckpt"
    writer.close("finished")
    lock.release()
    assert run.status == "finished", "a handle holds nothing"


def test_a_handle_of_an_empty_folder_has_an_answer_to_everything(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.status == "crashed"
    assert (run.info, run.config, run.trainer_config, run.series) == ({}, {}, {}, {})
    assert run.log().shape == (0, 0)
    assert run.checkpoints() == []
    assert run.latest_checkpoint() is None
    assert repr(run).startswith(f"Run({tmp_path.name!r}, crashed, step 0")


@pytest.mark.parametrize("series", [None, [], "loss", {"a": None, "b": ["x"], "c": [1, 2], "d": ["x", "y", "z"]}])
def test_series_that_are_none_are_left_out(series: object) -> None:
    assert make("gpt", series=series).series == {}


def test_handles_of_the_same_folder_are_equal() -> None:
    run = make("gpt")
    assert {run, darkit.load("gpt"), darkit.load("gpt:iter-3-ckpt")} == {run}
    assert run != make("other")
    assert run != "gpt"


def test_everything_public_of_a_handle_is_documented() -> None:
    public = {name: member for name, member in vars(Run).items() if not name.startswith("_")}
    assert {"name", "status", "details", "log", "checkpoints", "latest_checkpoint"} <= set(public)
    assert "path" in (inspect.getdoc(Run) or "")
    for name, member in public.items():
        assert inspect.getdoc(member), name


def test_runs_are_listed_newest_first(home: Path) -> None:
    assert darkit.runs() == []
    for age, name in enumerate(["b", "c", "a"]):
        made_at(make(name), time.time() - age)
    os.utime(base() / "a" / "run.json", (2e9, 2e9))  # as a resume or a copy leaves it
    assert [run.name for run in darkit.runs()] == ["b", "c", "a"]
    assert darkit.runs() == list_runs() == list_runs(root=home / "base")


def test_another_root_has_its_own_runs(tmp_path: Path) -> None:
    make("here")
    there = make("there", tmp_path / "other")
    assert darkit.runs(root=tmp_path / "other") == [there]
    assert darkit.load("there", root=tmp_path / "other") == there
    with pytest.raises(RunNotFoundError):
        darkit.load("there")


def test_what_is_no_run_is_not_listed(tmp_path: Path) -> None:
    run = make("gpt")
    for junk in (".trash", "no:name", "two\nlines", os.fsdecode(b"caf\xe9"), " x"):
        make(junk)
    (base() / "empty").mkdir()
    (base() / "file").write_text("x")
    (base() / "link").symlink_to(run.path)
    (base() / "gone").symlink_to("nowhere")
    (base() / "loop").mkdir()
    (base() / "loop" / "run.json").symlink_to("run.json")
    assert darkit.runs() == [run]


def test_a_run_with_a_garbled_description_is_still_listed() -> None:
    run = make("gpt")
    (run.path / "run.json").write_bytes(b"\xff")
    assert darkit.runs() == [run]


def test_a_root_that_is_a_file_has_no_runs(home: Path) -> None:
    home.write_text("x")
    assert darkit.runs() == []


def test_a_root_that_cannot_be_read_is_one_sentence(home: Path) -> None:
    home.mkdir()
    base().symlink_to("base")
    with pytest.raises(StorageError, match=r"^Cannot list the runs in .*base: Too many levels of symbolic links\.$"):
        darkit.runs()


def test_a_missing_run_lists_what_there_is_nearest_first() -> None:
    with pytest.raises(RunNotFoundError, match=r"There is no run 'gpt-two' in .*base\. Available: none"):
        darkit.load("gpt-two")
    for name in ("alpha", "gpt-one", "gpt-tow"):
        make(name)
    with pytest.raises(RunNotFoundError) as caught:
        darkit.load("gpt-two")
    assert str(caught.value) == (
        f"There is no run 'gpt-two' in {base()}. Did you mean 'gpt-tow'? Available: gpt-tow, gpt-one, alpha."
    )


def test_a_file_in_the_place_of_a_run_is_no_run() -> None:
    base().mkdir(parents=True)
    (base() / "gpt").write_text("x")
    with pytest.raises(RunNotFoundError):
        darkit.load("gpt")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", None, 3])
def test_what_is_no_name_is_not_looked_for(name: Any) -> None:
    with pytest.raises(NameInvalidError):
        load(name)


def test_a_link_in_the_place_of_a_run_is_not_followed(tmp_path: Path) -> None:
    base().mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (base() / "gpt").symlink_to(tmp_path / "secret")
    with pytest.raises(NameInvalidError, match="symbolic link"):
        darkit.load("gpt")
