"""The list of runs, with and without its cache: what is shown is always what the files say."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import files, index, listing
from darkit.runs.index import Index
from darkit.runs.listing import Listed, list_facts
from darkit.runs.lock import RunLock
from darkit.runs.notes import set_project
from tests.dashboard.parts import make_run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs, listed with a cache that takes files that were written just now."""
    monkeypatch.setattr(listing, "FEWEST", 2)
    monkeypatch.setattr(index, "_RECENT", -(10**18))
    monkeypatch.setattr(index, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    root = tmp_path / "base"
    for number, state in enumerate(("finished", "stopped", "crashed", "running")):
        host = os.uname().nodename if state == "running" else "elsewhere"
        make_run(root, f"run-{number}", 20, seed=number, state=state, host=host)
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs whose files were opened."""
    opened: list[str] = []
    read = listing._read

    def seen(folder: Path, **options: Any) -> tuple[Listed, str]:
        opened.append(folder.name)
        return read(folder, **options)

    monkeypatch.setattr(listing, "_read", seen)
    return opened


def uncached(root: Path) -> list[Listed]:
    """Return what the files say."""
    found = [listing.facts_of(folder) for folder in root.iterdir() if (folder / files.RUN).is_file()]
    return sorted(found, key=lambda one: (one.created, one.name), reverse=True)


def database(tmp_path: Path) -> Path:
    (path,) = tmp_path.glob("cache/runs/*.sqlite")
    return path


def test_the_second_list_opens_no_file_and_says_the_same(root: Path, reads: list[str]) -> None:
    first = list_facts(root)
    assert len(reads) == 4
    assert [one.state for one in first] == ["crashed", "crashed", "stopped", "finished"]
    reads.clear()
    assert list_facts(root) == first == uncached(root)
    assert sorted(reads) == sorted(path.name for path in root.iterdir())  # by `uncached` alone


@pytest.mark.parametrize("name", [files.RUN, files.STATUS, files.NOTES, files.LOG])
def test_a_change_of_any_file_that_is_read_is_seen_though_size_and_time_are_as_before(
    name: str, root: Path, reads: list[str]
) -> None:
    folder = root / "run-1"
    set_project(folder, "old")
    list_facts(root)
    before = (folder / name).stat()
    content = (folder / name).read_text()
    loss = (folder / files.LOG).read_text().splitlines()[-1].split(",")[4]
    changes = {
        files.RUN: ("demo.MLP", "demo.CNN"),
        files.STATUS: ('"stopped"', '"crashed"'),
        files.NOTES: ('"old"', '"new"'),
        files.LOG: (loss, "9" * len(loss)),
    }
    (folder / name).write_text(content.replace(*changes[name]))  # in place: the folder does not change
    os.utime(folder / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / name).stat().st_size == before.st_size
    reads.clear()
    assert list_facts(root) == uncached(root)
    assert reads.count("run-1") >= 1


def test_a_run_that_is_resumed_moved_or_gone_is_not_shown_as_before(root: Path) -> None:
    RunLock(root / "run-3").release()  # so that taking it again creates no file
    list_facts(root)
    lock = RunLock(root / "run-3")
    status = files.read_json(root / "run-3" / files.STATUS)
    assert next(one for one in list_facts(root) if one.name == "run-3").state in ("running", "stalled")
    lock.release()
    assert next(one for one in list_facts(root) if one.name == "run-3").state == "crashed"
    files.write_json(root / "run-3" / files.STATUS, {**status, "state": "finished"})
    (root / "run-0").rename(root / "moved")
    (root / "run-1" / files.RUN).unlink()
    assert {one.name: one.state for one in list_facts(root)} == {
        "moved": "finished",
        "run-2": "crashed",
        "run-3": "finished",
    }


def test_what_was_written_just_now_is_not_cached(root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_RECENT", 2 * 10**9)
    list_facts(root)
    reads.clear()
    list_facts(root)
    assert len(reads) == 4


def damage(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"no database at all" * 100)
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        values: dict[str, Any] = {
            "types": json.dumps([False, 5, None, [], {}, "x", "y", 1, 2, 3, 4]),
            "short": "[]",
            "no json": "{",
            "another": '"text"',
        }
        with sqlite3.connect(path) as connection:
            if how == "version":
                connection.execute("UPDATE runs SET kind = 'list 0 name'")
            elif how == "columns":
                connection.execute("ALTER TABLE runs RENAME COLUMN value TO something")
            else:
                connection.execute("UPDATE runs SET value = ?", (values[how],))
        connection.close()


@pytest.mark.parametrize(
    "how", ["gone", "garbage", "torn", "version", "columns", "types", "short", "no json", "another"]
)
def test_a_cache_that_is_damaged_or_of_another_version_is_made_again(
    how: str, root: Path, reads: list[str], tmp_path: Path
) -> None:
    expected = list_facts(root)
    damage(database(tmp_path), how)
    assert list_facts(root) == expected
    list_facts(root)
    reads.clear()
    assert list_facts(root) == expected
    assert not reads


@pytest.mark.parametrize("how", ["locked", "unwritable", "folder is a file"])
def test_a_cache_that_cannot_be_used_changes_no_list(how: str, root: Path, tmp_path: Path) -> None:
    expected = uncached(root)
    if how == "folder is a file":
        (tmp_path / "cache").write_text("")
        assert list_facts(root) == expected
        return
    list_facts(root)
    path = database(tmp_path)
    if how == "locked":
        with sqlite3.connect(path) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            assert list_facts(root) == expected
        connection.close()
    else:
        path.chmod(0o400)
        path.parent.chmod(0o500)
        make_run(root, "new", 5)
        assert list_facts(root) == uncached(root)
        path.parent.chmod(0o700)


def test_a_home_that_cannot_be_written_is_listed_with_a_cache_and_stays_as_it_is(root: Path, reads: list[str]) -> None:
    before = {path: path.stat().st_ctime_ns for path in root.parent.rglob("base/**/*")}
    list_facts(root)
    list_facts(root)
    assert {path: path.stat().st_ctime_ns for path in root.parent.rglob("base/**/*")} == before


def test_the_caches_of_two_roots_and_of_two_hosts_are_apart(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Index(root, "kind").store({"a": (b"1", 5)})
    assert Index(root, "kind").load() == {"a": (b"1", 5)}
    assert Index(root, "another").load() == {}
    assert Index(root.parent, "kind").load() == {}
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert Index(root, "kind").load() == {}


def test_caches_that_nobody_used_for_long_are_removed(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "cache" / "runs" / "old.sqlite"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    os.utime(old, (1.0, 1.0))
    list_facts(root)
    assert not old.exists()
    assert database(tmp_path).exists()


def test_few_runs_leave_no_cache(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FEWEST", 5)
    list_facts(root)
    assert not (tmp_path / "cache").exists()
