"""The copy of a home, from a folder that can break at any byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from darkit.remote import mirror as module
from darkit.remote.mirror import Mirror
from darkit.runs import Run, files, list_runs
from tests.remote.parts import BreakingStore, make_run, snapshot


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The home that is copied."""
    folder = tmp_path / "there"
    make_run(folder, "one")
    return folder


@pytest.fixture
def copy(tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    monkeypatch.setattr(module, "_COARSE", 0.0)
    return Mirror(tmp_path / "copy", str(there))


def rows(copy: Mirror, name: str = "one") -> list[int]:
    return Run(copy.base / name).log()["step"].to_list()


def test_small_files_and_logs_are_copied_and_nothing_else_and_the_home_stays_untouched(
    there: Path, copy: Mirror
) -> None:
    files.write_text(there / "base" / "one" / files.GRAPH, "{}")
    before = snapshot(there)
    copy.bring_up_to_date(BreakingStore())
    copy.bring_up_to_date(BreakingStore())
    assert snapshot(there) == before
    (run,) = list_runs(root=copy.base)
    assert {path.name for path in run.path.iterdir()} == {
        *("run.json", "config.json", "status.json", "graph.json", "train_log.csv")
    }
    assert (run.status, run.details.step, run.config, rows(copy)) == ("finished", 3, {"width": 3}, [1, 2, 3])
    assert copy.problem == ""
    assert copy.seen(run.path) is not None


def test_a_connection_that_breaks_at_any_byte_leaves_whole_runs_files_and_rows(there: Path, tmp_path: Path) -> None:
    make_run(there, "two", rows=40)
    whole = sum(path.stat().st_size for path in (there / "base").rglob("*") if path.suffix in (".json", ".csv"))
    for limit in range(0, 2 * whole, 7):
        copy = Mirror(tmp_path / "broken", str(there))
        try:
            copy.bring_up_to_date(BreakingStore(limit))
        except ConnectionResetError:
            pass
        else:
            break
        for path in copy.base.iterdir():
            assert {file.name for file in path.iterdir()} >= {"run.json", "config.json", "status.json"}
            for name in ("run.json", "config.json", "status.json"):
                assert (path / name).read_bytes() == (there / "base" / path.name / name).read_bytes()
            text = (there / "base" / path.name / files.LOG).read_bytes()
            shown = (path / files.LOG).read_bytes()
            assert text.startswith(shown)
            assert not shown or shown.endswith(b"\n")
    assert limit > whole / 2
    assert (rows(copy), rows(copy, "two")) == ([1, 2, 3], list(range(1, 41)))


def test_a_log_grows_by_whole_lines_that_are_read_once(there: Path, copy: Mirror) -> None:
    log = there / "base" / "one" / files.LOG
    files.write_json(log.parent / files.STATUS, {"state": "running"})
    copy.bring_up_to_date(BreakingStore())
    inode = (copy.base / "one" / files.LOG).stat().st_ino
    with log.open("a") as file:
        file.write("4,0.4\n5,0")
    copy.bring_up_to_date(BreakingStore())
    assert (copy.base / "one" / files.LOG).read_text().endswith("3,0.3\n4,0.4\n")
    with log.open("a") as file:
        file.write(".5\n")
    copy.bring_up_to_date(BreakingStore())
    assert rows(copy) == [1, 2, 3, 4, 5]
    assert (copy.base / "one" / files.LOG).read_bytes() == log.read_bytes()
    assert (copy.base / "one" / files.LOG).stat().st_ino == inode  # appended, not replaced


@pytest.mark.parametrize(
    "text",
    [
        "step,train_loss\n1,0.1\n",  # cut by a resume
        "step,train_loss\n1,0.1\n2,0.9\n3,0.9\n4,0.9\n",  # and grown again, beyond the copy
        "step,train_loss\n1,0.1\n2,0.9\n3,0.9\n",  # and of the same size
        "step,train_loss,more\n1,0.1,\n2,0.2,\n3,0.3,\n4,0.4,9\n",  # a new column
        "",
    ],
)
def test_a_log_that_was_rewritten_is_copied_anew(text: str, there: Path, copy: Mirror) -> None:
    copy.bring_up_to_date(BreakingStore())
    copy.bring_up_to_date(BreakingStore())
    log = there / "base" / "one" / files.LOG
    files.write_text(log, text)
    files.write_json(there / "base" / "one" / files.STATUS, {"state": "running"})
    copy.bring_up_to_date(BreakingStore())
    assert (copy.base / "one" / files.LOG).read_text() == text


def test_a_small_file_changes_as_a_whole_goes_with_its_source_and_waits_until_it_is_json(
    there: Path, copy: Mirror
) -> None:
    copy.bring_up_to_date(BreakingStore())
    run = there / "base" / "one"
    files.write_json(run / files.NOTES, {"tags": ["a"]})
    copy.bring_up_to_date(BreakingStore())
    assert (copy.base / "one" / files.NOTES).exists()
    (run / files.NOTES).unlink()
    (run / files.STATUS).write_text('{"state": "run')  # it is being written in place
    os.utime(run)
    copy.bring_up_to_date(BreakingStore())
    assert not (copy.base / "one" / files.NOTES).exists()
    assert Run(copy.base / "one").status == "finished"
    copy.bring_up_to_date(BreakingStore())
    assert (copy.base / "one" / files.STATUS).read_text() == '{"state": "run'  # it is so for good


def test_a_run_that_is_renamed_or_deleted_goes_with_its_source(there: Path, copy: Mirror) -> None:
    make_run(there, "two")
    copy.bring_up_to_date(BreakingStore())
    (there / "base" / "one").rename(there / "base" / "three")
    copy.bring_up_to_date(BreakingStore())
    assert {path.name for path in copy.base.iterdir()} == {"two", "three"}


def test_ended_runs_are_not_looked_into_again_until_their_folder_changes_and_not_after_a_restart(
    there: Path, copy: Mirror, tmp_path: Path
) -> None:
    for _ in range(3):
        copy.bring_up_to_date(BreakingStore())
    store = BreakingStore()
    copy.bring_up_to_date(store)
    Mirror(tmp_path / "copy", str(there)).bring_up_to_date(store)
    assert store.calls == ["list base", "list base"]
    files.write_json(there / "base" / "one" / files.STATUS, {"state": "running"})
    for _ in range(4):  # a running run is looked at in each pass
        copy.bring_up_to_date(store)
    assert store.calls.count("list one") == 4
    assert Run(copy.base / "one").info["id"] == "one"


def test_links_odd_names_and_what_is_no_run_are_left_out(there: Path, copy: Mirror, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    run = make_run(there, "two")
    (run / files.NOTES).symlink_to(tmp_path / "secret.json")
    (there / "base" / "link").symlink_to(run)
    (there / "base" / "half-made").mkdir()
    (there / "base" / "two\nlines").mkdir()
    (there / "base" / "file").touch()
    copy.bring_up_to_date(BreakingStore())
    assert {path.name for path in copy.base.iterdir()} == {"one", "two"}
    assert not (copy.base / "two" / files.NOTES).exists()
    assert copy.problem == "Left out: 1 folders whose names are no run names"


def test_what_is_too_much_is_left_out_and_said(there: Path, copy: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(there, "two", rows=1000)
    monkeypatch.setattr(module, "LONGEST_LOG", 1000)
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    make_run(there, "three")
    copy.bring_up_to_date(BreakingStore())
    assert len(list(copy.base.iterdir())) == 2
    assert "1 runs beyond 2" in copy.problem
    assert sum(path.stat().st_size for path in copy.base.rglob("*.csv")) <= 1100
    monkeypatch.setattr(module, "LARGEST", 0)
    with (there / "base" / "three" / files.LOG).open("a") as file:
        file.write("4,1\n")
    copy.bring_up_to_date(BreakingStore())
    assert "the end of train_log.csv of three" in copy.problem


def test_a_run_that_must_not_be_read_hides_no_other(there: Path, copy: Mirror) -> None:
    class Forbidding(BreakingStore):
        def list(self, path: str) -> list[module.Item]:
            if path.endswith("one"):
                raise PermissionError(13, "Permission denied")
            return super().list(path)

    make_run(there, "two")
    copy.bring_up_to_date(Forbidding())
    assert {path.name for path in copy.base.iterdir()} == {"two"}
    assert copy.problem == "Left out: one, which must not be read"


def test_small_files_count_and_one_that_does_not_fit_leaves_the_last_copy(
    there: Path, copy: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held() -> int:
        return sum(path.stat().st_size for path in copy.base.rglob("*") if path.is_file())

    config, notes = there / "base" / "one" / files.MODEL_CONFIG, there / "base" / "one" / files.NOTES
    files.write_json(there / "base" / "one" / files.STATUS, {"state": "running"})
    monkeypatch.setattr(module, "LARGEST", 2**21)  # a log takes one more mebibyte while it is copied
    copy.bring_up_to_date(BreakingStore())
    assert copy._size == held()
    files.write_json(notes, {"note": "x" * 2**20})
    copy.bring_up_to_date(BreakingStore())
    assert (copy.problem, copy._size) == ("", held())
    files.write_json(config, {"width": "y" * 2**20})
    make_run(there, "two")
    files.write_json(there / "base" / "two" / files.NOTES, {"note": "z" * 2**20})
    copy.bring_up_to_date(BreakingStore())
    assert "changes of one, for which" in copy.problem
    assert "changes of two, for which" in copy.problem
    assert Run(copy.base / "one").config == {"width": 3}
    assert {path.name for path in copy.base.iterdir()} == {"one"}
    assert copy._size == held() <= module.LARGEST
    notes.unlink()
    copy.bring_up_to_date(BreakingStore())  # one file smaller, then one larger
    copy.bring_up_to_date(BreakingStore())
    assert copy._size == held() <= module.LARGEST
    with pytest.raises(ConnectionResetError):
        copy.bring_up_to_date(BreakingStore(10))
    assert copy._size == held()
