"""What happens to runs is noticed once, and nothing that was over before the first look."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from darkit.dashboard.reading import library as library_module
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.events import Event, Events
from darkit.dashboard.reading.library import Library
from darkit.runs import files
from tests.dashboard.parts import make_run


@pytest.fixture
def events(home: Path, monkeypatch: pytest.MonkeyPatch) -> Events:
    monkeypatch.setattr(library_module, "_FRESH", 0.0)
    make_run(home / "base", "old", 20, state="crashed")
    make_run(home / "base", "live", 20, state="running", max_step=100)
    started = Events(Library(home / "base", LogCache()))
    started.look()
    return started


def put(folder: Path, **changes: Any) -> None:
    values = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**values, "heartbeat": time.time(), **changes})


def new(events: Events, after: int) -> list[tuple[str, str]]:
    events.look()
    return [(event.kind, event.run) for event in events.since(after)[1]]


def test_what_was_over_before_the_first_look_is_no_event(events: Events) -> None:
    assert events.since(0) == (0, [])
    assert events.since(None) == (0, [])


def test_a_run_that_stalls_goes_on_and_ends_is_told_each_time_and_never_twice(events: Events, home: Path) -> None:
    folder = home / "base" / "live"
    put(folder, state="stalled", reason="No progress for 60 s.")
    assert new(events, 0) == [("stalled", "live")]
    assert new(events, 1) == []
    put(folder, state="running", reason="")
    assert new(events, 1) == []
    put(folder, state="crashed", step=21, reason="ValueError: boom")
    assert new(events, 1) == [("crashed", "live")]
    (event,) = events.since(1)[1]
    last = event.metrics["train_loss"]
    assert isinstance(last, float)
    assert event == Event(2, "crashed", "live", 21, 100, "ValueError: boom", event.time, event.metrics, reached=21)
    put(folder, note="nothing new")
    assert new(events, 2) == []


def test_a_loss_that_stays_nan_is_told_once_and_so_is_the_end_that_it_causes(events: Events, home: Path) -> None:
    with (home / "base" / "live" / files.LOG).open("a") as log:
        log.write("21,0,1760000000.3,0.001,NaN,\n")
    assert new(events, 0) == [("diverged", "live")]
    assert events.since(0)[1][0].step == 21
    with (home / "base" / "live" / files.LOG).open("a") as log:
        log.write("22,0,1760000000.4,0.001,0.5,\n23,0,1760000000.5,0.001,NaN,\n")
    assert new(events, 1) == []
    make_run(home / "base", "late", 5, state="running", started=time.time())
    assert new(events, 1) == []
    put(home / "base" / "late", state="crashed", diverged=5, reason="The loss is NaN.")
    assert new(events, 1) == [("diverged", "late")]
    (event,) = events.since(1)[1]
    assert (event.also, event.reached) == ("crashed", 5)


def test_a_new_run_that_has_ended_already_is_told_but_not_one_that_was_brought_from_elsewhere(
    events: Events, home: Path
) -> None:
    make_run(home / "base", "copied", 5, state="finished")
    make_run(home / "base", "short", 5, state="finished", started=time.time() + 1)
    assert new(events, 0) == [("finished", "short")]


def test_a_run_that_gets_another_name_or_comes_back_from_the_trash_is_not_told_again(
    events: Events, home: Path
) -> None:
    make_run(home / "base", "short", 5, state="finished", started=time.time() + 1)
    assert new(events, 0) == [("finished", "short")]
    (home / "base" / "short").rename(home / "base" / "long")
    assert new(events, 1) == []
    (home / "base" / "long").rename(home / "aside")
    assert new(events, 1) == []
    (home / "aside").rename(home / "base" / "long")
    assert new(events, 1) == []
    (home / "base" / "old").rename(home / "base" / "renamed")
    assert new(events, 1) == []
