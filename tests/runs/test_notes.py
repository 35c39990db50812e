from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from darkit.errors import ConfigError, NameInvalidError, NotesChangedError
from darkit.runs import files
from darkit.runs.notes import (
    LONGEST_NOTE,
    MOST_EVALUATIONS,
    MOST_TAGS,
    Evaluation,
    Notes,
    add_evaluation,
    merge_notes,
    project_of,
    read_notes,
    set_project,
    write_notes,
)
from darkit.runs.requests import request_stop
from tests.runs.parts import line_of, names_in, python


def test_notes_read_back_as_they_were_written_with_tags_cleaned(tmp_path: Path) -> None:
    written = write_notes(tmp_path, Notes((" a  b ", "c", "c", " "), "line\nline ✓", True))
    assert written == Notes(("a b", "c"), "line\nline ✓", True)
    assert read_notes(tmp_path) == written


def test_without_notes_and_with_those_of_another_form_there_are_none(tmp_path: Path) -> None:
    assert read_notes(tmp_path) == Notes()
    (tmp_path / "notes.json").write_text('{"tags": "x", "note": 5, "archived": 1}')
    assert read_notes(tmp_path) == Notes()


@pytest.mark.parametrize("broken", ["", "[1]", "\0", '{"tags": ["a"], "note": "wo'])
def test_notes_that_cannot_be_read_say_so_and_are_not_written_over(tmp_path: Path, broken: str) -> None:
    (tmp_path / "notes.json").write_text(broken)
    assert "notes.json" in read_notes(tmp_path).problem
    assert read_notes(tmp_path).tags == ()
    with pytest.raises(ConfigError, match="stay as they are"):
        write_notes(tmp_path, Notes(note="new"))
    assert (tmp_path / "notes.json").read_text() == broken


@pytest.mark.parametrize(
    "notes",
    [Notes(("x" * 61,)), Notes(tuple(map(str, range(MOST_TAGS + 1)))), Notes(note="x" * (LONGEST_NOTE + 1))],
)
def test_too_much_is_refused_and_nothing_written(tmp_path: Path, notes: Notes) -> None:
    with pytest.raises(ConfigError, match="at most"):
        write_notes(tmp_path, notes)
    assert list(tmp_path.iterdir()) == []


def test_a_request_to_stop_says_who_asked_and_when(tmp_path: Path) -> None:
    request_stop(tmp_path, by="dashboard")
    asked = files.read_json(tmp_path / files.STOP)
    assert asked["by"] == "dashboard"
    assert asked["time"] > 1.7e9


def test_evaluations_are_appended_and_survive_a_persons_words(tmp_path: Path) -> None:
    one, other = Evaluation(1.0, "a.txt", "iter-4-ckpt", {"loss": 2.5}), Evaluation(2.0, "b", "iter-5-ckpt", {})
    add_evaluation(tmp_path, one)
    write_notes(tmp_path, Notes(("tag",), "note"))
    add_evaluation(tmp_path, other)
    assert read_notes(tmp_path) == Notes(("tag",), "note", evaluations=(one, other))


def test_of_many_evaluations_the_oldest_go(tmp_path: Path) -> None:
    for number in range(MOST_EVALUATIONS + 2):
        add_evaluation(tmp_path, Evaluation(float(number), "a", "c"))
    times = [evaluation.time for evaluation in read_notes(tmp_path).evaluations]
    assert times == [float(number) for number in range(2, MOST_EVALUATIONS + 2)]


def test_long_evaluations_never_make_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    write_notes(tmp_path, Notes(note="mine"))
    metrics = {f"{'x' * 490}_{number}": 0.5 for number in range(500)}
    for time in range(6):
        add_evaluation(tmp_path, Evaluation(float(time), "other", "iter-1-ckpt", metrics))
    notes = read_notes(tmp_path)
    assert (notes.problem, notes.note) == ("", "mine")
    assert notes.evaluations[-1].time == 5.0
    assert 1 < len(notes.evaluations) < 6
    with pytest.raises(ConfigError, match="would be longer than"):
        add_evaluation(tmp_path, Evaluation(6.0, "other", "", {f"{'x' * 490}_{number}": 0.5 for number in range(5000)}))
    assert read_notes(tmp_path) == notes


@pytest.mark.parametrize("wrong", [7, "x", [7, {"metrics": 7}, []], [{"time": 1}]])
def test_what_has_not_the_form_of_an_evaluation_is_left_out(tmp_path: Path, wrong: object) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({"evaluations": wrong, "note": "kept"}))
    assert read_notes(tmp_path) == Notes(note="kept")


WRITE = """
import sys
from pathlib import Path
from darkit.runs.notes import Evaluation, Notes, add_evaluation, merge_notes, read_notes
folder, who = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    add_evaluation(folder, Evaluation(float(number), who, "c"))
    before = read_notes(folder)
    if number < 10:
        merge_notes(folder, before, Notes((*before.tags, f"{who}{number}"), before.note))
print("done", flush=True)
"""


def test_two_processes_that_write_lose_nothing_of_each_other(tmp_path: Path) -> None:
    with python(WRITE, tmp_path, "a") as one, python(WRITE, tmp_path, "b") as other:
        for process in (one, other):
            assert line_of(process) == "ready"
        for process in (one, other):
            print(file=process.stdin, flush=True)
        assert [line_of(process) for process in (one, other)] == ["done", "done"]
    notes = read_notes(tmp_path)
    for who in "ab":
        assert [each.time for each in notes.evaluations if each.data == who] == [float(number) for number in range(50)]
        assert {tag for tag in notes.tags if tag[0] == who} == {f"{who}{number}" for number in range(10)}
    assert notes.revision == 20
    assert names_in(tmp_path) == ["notes.json"]


def test_words_that_are_not_those_that_were_read_are_not_written_over(tmp_path: Path) -> None:
    stale = read_notes(tmp_path)
    write_notes(tmp_path, Notes(note="of another page"))
    with pytest.raises(NotesChangedError, match="changed since they were read"):
        write_notes(tmp_path, replace(stale, note="mine"))
    assert read_notes(tmp_path).note == "of another page"
    write_notes(tmp_path, replace(read_notes(tmp_path), note="mine"))
    assert read_notes(tmp_path).note == "mine"


def test_a_merge_changes_only_what_was_changed(tmp_path: Path) -> None:
    before = write_notes(tmp_path, Notes(("a", "b"), "shown"))
    write_notes(tmp_path, Notes(("a", "b", "theirs"), "their words", True))
    merged = merge_notes(tmp_path, before, replace(before, tags=("mine", "b")))
    assert merged == read_notes(tmp_path) == Notes(("mine", "b", "theirs"), "their words", True)


def test_a_note_that_both_changed_stays_and_the_second_is_told(tmp_path: Path) -> None:
    before = write_notes(tmp_path, Notes(note="shown"))
    write_notes(tmp_path, Notes(note="theirs"))
    with pytest.raises(NotesChangedError, match="was changed elsewhere"):
        merge_notes(tmp_path, before, Notes(("tag",), "mine"))
    assert read_notes(tmp_path) == Notes(note="theirs")
    assert merge_notes(tmp_path, before, Notes(note="theirs")).note == "theirs", "the same change is no conflict"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF])
def test_notes_are_written_where_the_file_system_knows_no_locks(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert write_notes(tmp_path, Notes(note="written")) == read_notes(tmp_path)


@pytest.mark.parametrize("revision", [-1, "7", True, None, 1.5])
def test_a_revision_of_another_form_counts_as_the_first(tmp_path: Path, revision: object) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({"revision": revision, "note": "kept"}))
    assert read_notes(tmp_path).revision == 0


def test_a_project_of_the_notes_overrides_that_of_the_run_and_survives_other_changes(tmp_path: Path) -> None:
    assert project_of({}, read_notes(tmp_path)) == ""
    assert project_of({"project": "started-in"}, read_notes(tmp_path)) == "started-in"
    write_notes(tmp_path, Notes(("a",), "words"))
    set_project(tmp_path, "moved-to")
    write_notes(tmp_path, Notes(("b",), "others"))
    merge_notes(tmp_path, read_notes(tmp_path), Notes(("c",), "others"))
    add_evaluation(tmp_path, Evaluation(1.0, "data", "iter-1-ckpt", {"loss": 0.5}))
    assert project_of({"project": "started-in"}, read_notes(tmp_path)) == "moved-to"
    assert read_notes(tmp_path).tags == ("c",)
    set_project(tmp_path, "")
    assert project_of({"project": "started-in"}, read_notes(tmp_path)) == ""


@pytest.mark.parametrize("project", ["a/b", ".x", "a:b", "\n", "x" * 101])
def test_a_project_is_checked_as_names_are(tmp_path: Path, project: str) -> None:
    with pytest.raises(NameInvalidError, match=r"The project .* a project is"):
        set_project(tmp_path, project)
    files.write_json(tmp_path / files.NOTES, {"project": project})
    assert project_of({"project": project}, read_notes(tmp_path)) == ""


def test_what_another_version_wrote_and_a_longer_note_survive_a_change(tmp_path: Path) -> None:
    there = {"note": "n" * (LONGEST_NOTE + 5), "tags": ["a"], "stars": 4}
    (tmp_path / files.NOTES).write_text(json.dumps(there))
    before = read_notes(tmp_path)
    merge_notes(tmp_path, before, replace(before, tags=("a", "b")))
    set_project(tmp_path, "other")
    found = json.loads((tmp_path / files.NOTES).read_text())
    assert (found["note"], found["stars"], found["tags"]) == (there["note"], 4, ["a", "b"])
    merge_notes(tmp_path, read_notes(tmp_path), replace(read_notes(tmp_path), note="short"))
    assert read_notes(tmp_path).note == "short"
