"""``darkit top`` as a person uses it: keys in, what is on the screen out; nothing is written."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from darkit.cli.main import main
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.terminal import app as module
from darkit.dashboard.terminal.app import Plot, Top
from darkit.runs import files
from darkit.runs.notes import Notes, write_notes
from tests.dashboard.parts import finish, make_run, row


@pytest.fixture
def runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "PERIOD", 0.1)
    base = home / "base"
    make_run(base, "first", 100, seed=0)
    make_run(base, "second", 100, seed=1, state="crashed", reason="ValueError: \x1b[31mboom")
    make_run(base, "third", 100, seed=2, state="running", max_step=1000)
    return base


def on_screen(base: Path, act: Callable[[Pilot[None]], Awaitable[None]], size: tuple[int, int] = (120, 40)) -> None:
    """Run the application without a terminal, and do something with it."""

    async def run() -> None:
        async with Top(Library(base, LogCache()), "~/darkit").run_test(size=size) as pilot:
            await until(pilot, lambda: cells(pilot) != [])
            await act(pilot)

    finish(run())


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    for _ in range(1200):
        await pilot.pause(0.05)
        if holds():
            return
    raise AssertionError(f"not within a minute: {cells(pilot)}, {legend(pilot)!r}")


def cells(pilot: Pilot[None]) -> list[list[str]]:
    table = pilot.app.query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]


def legend(pilot: Pilot[None]) -> str:
    return str(pilot.app.query_one("#legend", Static).render())


def reason(pilot: Pilot[None]) -> str:
    return str(pilot.app.query_one("#reason", Static).render())


def test_the_table_has_every_run_and_the_chart_the_one_at_the_cursor(runs: Path) -> None:
    async def act(pilot: Pilot[None]) -> None:
        assert [line[1:4] for line in cells(pilot)] == [
            ["running", "third", "100/1,000"],
            ["crashed", "second", "100/100"],
            ["finished", "first", "100/100"],
        ]
        await until(pilot, lambda: "third" in legend(pilot))
        assert legend(pilot).startswith("val_loss  ● third 0.4")
        await pilot.press("j")
        await until(pilot, lambda: "second" in legend(pilot))
        assert reason(pilot) == "ValueError: \\x1b[31mboom"
        await pilot.press("m")
        await until(pilot, lambda: legend(pilot).startswith("train_loss"))
        await pilot.press("n", "l", "k")
        await until(pilot, lambda: legend(pilot).startswith("val_loss  (log)  ● third"))
        plot = pilot.app.query_one(Plot)
        assert len(plot.render().plain.splitlines()) == plot.size.height
        assert "│" in plot.render().plain

    on_screen(runs, act)


def test_archived_runs_are_shown_when_they_are_asked_for(runs: Path) -> None:
    write_notes(runs / "second", Notes(archived=True))

    async def act(pilot: Pilot[None]) -> None:
        assert [line[2] for line in cells(pilot)] == ["third", "first"]
        await pilot.press("a")
        await until(pilot, lambda: [line[2] for line in cells(pilot)] == ["third", "second", "first"])
        await pilot.press("a")
        await until(pilot, lambda: len(cells(pilot)) == 2)

    on_screen(runs, act)


def test_the_best_value_of_a_run_that_diverged_is_marked(runs: Path) -> None:
    make_run(runs, "lost", 100, seed=9, losses=dict.fromkeys(range(90, 101), math.nan))

    async def act(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(cells(pilot)) == 4)
        best = {line[2]: line[6] for line in cells(pilot)}
        assert best.pop("lost").endswith(" ⚠")
        assert "⚠" not in "".join(best.values())

    on_screen(runs, act)


def test_several_runs_are_compared_searched_and_left_again(runs: Path) -> None:
    async def act(pilot: Pilot[None]) -> None:
        await pilot.press("space", "down", "down", "space")
        await until(pilot, lambda: "third" in legend(pilot) and "first" in legend(pilot))
        assert "second" not in legend(pilot)
        assert [line[0] for line in cells(pilot)] == ["●", " ", "●"]
        assert len(pilot.app.query_one(Plot).curves) == 2
        await pilot.press("slash", *"SEC", "enter")
        await until(pilot, lambda: [line[2] for line in cells(pilot)] == ["second"])
        await pilot.press("slash", "space", *"state:", "enter")
        await until(pilot, lambda: reason(pilot).startswith("A value is missing"))
        await pilot.press("escape", "slash", *"val_los<1", "enter")
        await until(pilot, lambda: reason(pilot).startswith("No run has 'val_los'. Did you mean 'val_loss'"))
        await pilot.press("escape")
        await until(pilot, lambda: len(cells(pilot)) == 3 and "third" not in legend(pilot))
        assert pilot.app.query_one(Input).value == ""

    on_screen(runs, act)


def test_what_changes_on_disk_changes_on_the_screen_and_nothing_is_written(runs: Path) -> None:
    folder = runs / "third"

    async def act(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "third" in legend(pilot))
        await pilot.press("m")
        before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
        with (folder / files.LOG).open("a") as log:
            log.write(row(101, 0.125) + "\n")
        values = files.read_json(folder / files.STATUS)
        files.write_json(folder / files.STATUS, {**values, "step": 101})
        await until(pilot, lambda: cells(pilot)[0][3] == "101/1,000" and "0.125" in legend(pilot))
        make_run(runs, "newest", 10, seed=9)
        await until(pilot, lambda: [line[2] for line in cells(pilot)] == ["newest", "third", "second", "first"])
        assert "third" in legend(pilot), "the cursor stays at its run"
        after = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if "newest" not in path.parts}
        changed = {path.name for path in after if before.get(path) != after[path]}
        assert changed <= {"base", "third", files.LOG, files.STATUS}

    on_screen(runs, act)


def test_it_fits_a_small_terminal_and_a_home_without_runs(runs: Path, home: Path) -> None:
    async def act(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "third" in legend(pilot))

    on_screen(runs, act, size=(40, 12))

    async def empty() -> None:
        async with Top(Library(home / "nothing", LogCache()), "nowhere").run_test() as pilot:
            await pilot.pause(0.3)
            assert cells(pilot) == []
            await pilot.press("space", "m", "l", "q")

    finish(empty())


def test_without_a_terminal_the_command_says_what_to_do(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["top"]) == 2
    assert "needs a terminal" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["top"]) == 2
    assert "pip install 'darkit[top]'" in capsys.readouterr().err


def test_the_command_runs_in_a_terminal_until_q(runs: Path, home: Path, python: str) -> None:
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(DARWIN_KIT_HOME=str(home), TERM="xterm-256color", COLUMNS="100", LINES="30")
        os.execv(python, [python, "-m", "darkit.cli.main", "top"])
    shown = b""
    while b"third" not in shown:
        shown += os.read(terminal, 65536)
    os.write(terminal, b"q")
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # it has ended
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
