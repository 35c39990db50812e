from __future__ import annotations

import json
from pathlib import Path

import pytest

from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.notes import (
    LONGEST_NOTE,
    MOST_EVALUATIONS,
    MOST_TAGS,
    Evaluation,
    Notes,
    add_evaluation,
    read_notes,
    write_notes,
)
from darkit.runs.requests import request_stop


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


@pytest.mark.parametrize("wrong", [7, "x", [7, {"metrics": 7}, []], [{"time": 1}]])
def test_what_has_not_the_form_of_an_evaluation_is_left_out(tmp_path: Path, wrong: object) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({"evaluations": wrong, "note": "kept"}))
    assert read_notes(tmp_path) == Notes(note="kept")
