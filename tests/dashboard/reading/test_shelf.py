"""The runs of one root: what a look reads, what it leaves out, and what comes from the cache."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from darkit.dashboard.reading import library as library_module
from darkit.dashboard.reading import shelf
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.facts import Facts
from darkit.dashboard.reading.library import Library
from darkit.dashboard.server.api import table_rows
from darkit.runs import files, index
from darkit.runs.notes import Notes, set_project, write_notes
from darkit.runs.roots import Root
from tests.dashboard.parts import make_run, row


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six runs, of which one runs on another host; every request looks, and a look checks one run in turn."""
    monkeypatch.setattr(shelf, "FEWEST", 2)
    monkeypatch.setattr(shelf, "FOLDERS", 1)
    monkeypatch.setattr(shelf, "WHOLE", 1)
    monkeypatch.setattr(library_module, "_FRESH", -1.0)
    monkeypatch.setattr(index, "_RECENT", -(10**18))
    monkeypatch.setattr(index, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    for number in range(6):
        state = "running" if number == 5 else "finished"
        make_run(tmp_path / "base", f"run-{number}", 20, seed=number, state=state)
    return tmp_path / "base"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs whose files the table opened."""
    opened: list[str] = []
    read = shelf.read_facts

    def seen(folder: Path, *rest: Any) -> Facts:
        opened.append(folder.name)
        return read(folder, *rest)

    monkeypatch.setattr(shelf, "read_facts", seen)
    return opened


def fresh(root: Path) -> Library:
    return Library(root, LogCache())


def rows(library: Library, since: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(table_rows(library, {"since": since, "columns": ["trainer.lr", "model.act"]}))
    return answer


def content(answer: dict[str, Any]) -> dict[str, Any]:
    """What an answer says, without the number that each server counts on from its own start."""
    return {key: value for key, value in answer.items() if key != "version"}


def without_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what a table says that has no cache."""
    with monkeypatch.context() as patched:
        patched.setattr(shelf, "FEWEST", 1000)
        return rows(fresh(root))


def test_a_second_start_opens_only_what_runs_and_shows_the_same(
    root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rows(fresh(root))
    assert len(first["rows"]) == 6
    reads.clear()
    second = rows(fresh(root))
    assert set(reads) == {"run-5"}
    assert content(second) == content(first) == content(without_cache(root, monkeypatch))


@pytest.mark.parametrize("file", [files.STATUS, files.RUN, files.TRAINER_CONFIG, files.NOTES, files.LOG])
def test_what_changed_while_no_server_ran_is_read_again(file: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notes(root / "run-1", Notes(("0.25",)))
    before = rows(fresh(root))
    path = root / "run-1" / file
    loss = (root / "run-1" / files.LOG).read_text().splitlines()[-1].split(",")[4]
    text = path.read_text()
    for old, new in {
        "finished": "stopped!",
        "demo.MLP": "demo.CNN",
        "0.001": "0.002",
        "0.25": "0.75",
        loss: "9",
    }.items():
        text = text.replace(old, new)
    path.write_text(text)  # in place
    after = rows(fresh(root))
    assert content(after) == content(without_cache(root, monkeypatch))
    assert after["rows"] != before["rows"]


def test_only_what_changed_is_sent(root: Path) -> None:
    library = fresh(root)
    first = rows(library)
    assert rows(library, first["version"]) == {
        "version": first["version"],
        "names": None,
        "keys": None,
        "metrics": None,
        "wide": None,
        "left_out": 0,
        "waiting": 0,
        "differing": None,
        "every_differing": None,
        "query": "",
        "rows": [],
    }
    with (root / "run-5" / files.LOG).open("a") as log:
        log.write(row(21, 0.125) + "\n")
    second = rows(library, first["version"])
    assert [(one["name"], one["series"]["train_loss"][0]) for one in second["rows"]] == [("run-5", 0.125)]
    assert second["names"] is None
    (root / "run-2").rename(root / "moved")
    third = rows(library, second["version"])
    assert [one["name"] for one in third["rows"]] == ["moved"]
    assert set(third["names"]) == {"run-0", "run-1", "moved", "run-3", "run-4", "run-5"}


def looks_until(library: Library, name: str, key: str, value: Any) -> int:
    """Return the number of looks until a row says something."""
    for count in range(1, 30):
        found = {entry.name: entry.row for entry in library.entries()[1]}
        if found[name][key] == value:
            return count
    raise AssertionError(f"{name} never said {key} = {value}: {found[name]}")


def test_a_change_of_an_ended_run_is_shown_after_a_bounded_number_of_looks(root: Path) -> None:
    library = fresh(root)
    library.entries()
    write_notes(root / "run-3", Notes(("new",)))  # written beside and renamed
    assert looks_until(library, "run-3", "tags", ["new"]) <= 6
    text = (root / "run-1" / files.STATUS).read_text()
    (root / "run-1" / files.STATUS).write_text(text.replace("finished", "crashed!"))  # in place
    assert looks_until(library, "run-1", "state", "crashed!") <= 7


def test_what_a_reader_changes_is_shown_at_the_next_look(root: Path) -> None:
    library = fresh(root)
    library.entries()
    for name in ("run-0", "run-3", "run-4"):
        set_project(library.writable_folder(name), "mine")
        assert looks_until(library, name, "project", "mine") == 1


def test_a_run_that_ended_just_now_is_cached_some_looks_later(
    root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_RECENT", 10**18)
    library = fresh(root)
    library.entries()
    monkeypatch.setattr(index, "_RECENT", -(10**18))
    library.entries()
    reads.clear()
    assert len(rows(fresh(root))["rows"]) == 6
    assert set(reads) == {"run-5"}


@pytest.mark.parametrize(
    "value",
    [
        *("5", "[]", "[{}, {}, []]", '[{"name": 5}, {}, []]', "{"),
        *(("row", key, wrong) for key, wrong in (("step", "x"), ("tags", [1]), ("lost", 5), ("note", None))),
        *(("series", "train_loss", wrong) for wrong in ([1], ["x", 1], [1, "NaN"])),
        *(("metrics", 0, wrong) for wrong in (["train_loss", True, True], "train_loss")),
        *(("config", "model.a", wrong) for wrong in ({}, [1])),
        *(("tags", 0, wrong) for wrong in (None, 5)),
    ],
)
def test_a_cached_value_of_another_form_is_read_again(
    value: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rows(fresh(root))
    (path,) = tmp_path.glob("cache/runs/*.sqlite")
    with sqlite3.connect(path) as connection:
        name, text = connection.execute("SELECT name, value FROM runs").fetchone()
        if not isinstance(value, str):
            part, key, wrong = value
            parts = dict(zip(("row", "series", "metrics", "config", "tags"), json.loads(text), strict=True))
            parts[part] = [wrong] if part in ("tags", "metrics") else {**parts[part], key: wrong}
            value = json.dumps(list(parts.values()))
        connection.execute("UPDATE runs SET value = ? WHERE name = ?", (value, name))
    connection.close()
    assert content(rows(fresh(root))) == content(expected)


def test_more_runs_than_one_look_reads_come_with_the_next_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "PATIENCE", 0.0)
    monkeypatch.setattr(shelf, "_TOGETHER", 4)
    library = fresh(root)
    first = rows(library)
    assert (len(first["rows"]), first["waiting"]) == (4, 2)
    second = rows(library, first["version"])
    assert (len(second["rows"]), len(second["names"]), second["waiting"]) == (2, 6, 0)


def test_more_folders_than_are_shown_are_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MOST_ROWS", 4)
    answer = rows(fresh(root))
    assert (len(answer["rows"]), answer["left_out"]) == (4, 2)


def test_a_home_that_cannot_be_reached_shows_its_last_state(root: Path, tmp_path: Path) -> None:
    library = Library([Root(root), Root(tmp_path / "far", "far")], LogCache())
    make_run(tmp_path / "far", "one", 5)
    assert "far/one" in {entry.name for entry in library.entries()[1]}
    (tmp_path / "far").rename(tmp_path / "away")
    root.rename(tmp_path / "gone")
    assert {entry.name for entry in library.entries()[1]} == {"far/one"}
