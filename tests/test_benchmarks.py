"""The frame of the benchmarks, not what they measure: rows have scripts, turns are fair, and verdicts are right."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture(scope="module")
def frame() -> Iterator[ModuleType]:
    """The frame, imported as the benchmarks import it."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("frame")
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_every_row_has_a_script_that_knows_its_contender(frame: ModuleType) -> None:
    suites = frame.suites()
    assert sum(len(suite.goals) for suite in suites.values()) > 5
    for suite in suites.values():
        for command in [*suite.commands(), *suite.commands(quick=True)]:
            source = (FOLDER / command[0]).read_text()
            assert re.search(rf"\b{re.escape(command[1])}\b", source), command
        if suite.program is not None:
            assert (FOLDER / suite.program).is_file()
    files = {path.stem for path in (FOLDER / "suites").glob("*.py")} - {"__init__"}
    assert files == set(suites), "a suite that is not in ORDER is never run"


def test_every_goal_is_named_once_and_can_be_missed_and_met(frame: ModuleType) -> None:
    goals = [goal for suite in frame.suites().values() for goal in suite.goals]
    assert len({goal.what for goal in goals}) == len(goals)
    for goal in goals:
        assert goal.must is not None or goal.aim is not None, goal.what
        if goal.must is not None and goal.aim is not None:
            assert goal.holds(goal.aim, goal.must), f"{goal.what}: the aim is beyond the bound"


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "quick", "step"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Unknown benchmark 'step'. Available: steps, checkpoints, ")


def test_contenders_run_in_turns_and_a_failure_ends_only_its_own(frame: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import pathlib, sys\n"
        "with pathlib.Path(__file__).with_name('order').open('a') as order: order.write(sys.argv[1])\n"
        "print('noise'); print({'a': '2.5', 'b': '{\"x\": 1.0}'}[sys.argv[1]])\n"
    )
    a, b, c = (("script.py", word) for word in "abc")
    turns = frame.Turns(folder=tmp_path)
    assert turns.take([a, b, c], rounds=2, least=1, seconds=1e9) == {a: [2.5, 2.5], b: [{"x": 1.0}] * 2}
    assert (tmp_path / "order").read_text() == "abcab"
    assert turns.failed == [c]


def test_what_only_tables_show_runs_once_and_what_goals_need_in_every_round(frame: ModuleType) -> None:
    table = frame.Table(title="t", script="s.py", contenders=("a", "b", "c"), base="a", unit="s")
    goal = frame.Goal(what="w", script="s.py", contender="b", base="a", must=1.0)
    suite = frame.Suite(tables=(table,), goals=(goal,))
    assert suite.once() == {("s.py", "c")}
    assert suite.once(quick=True) == set()
    assert frame.Suite(tables=(table,)).once() == set(), "a suite without goals"
    turns = frame.Turns()
    turns._run = lambda command: 1.0
    answers = turns.take(suite.commands(), rounds=3, least=3, seconds=0, once=suite.once())
    assert {command[1]: len(found) for command, found in answers.items()} == {"a": 3, "b": 3, "c": 1}


@pytest.mark.parametrize(("rounds", "least", "seconds", "taken"), [(5, 1, 3, 3), (5, 4, 0, 4), (2, 1, 99, 2)])
def test_rounds_are_bounded_by_time_but_not_below_the_least(
    frame: ModuleType, tmp_path: Path, rounds: int, least: int, seconds: float, taken: int
) -> None:
    (tmp_path / "script.py").write_text("print(1)")
    turns = frame.Turns(folder=tmp_path, clock=count().__next__)  # a second per round
    answers = turns.take([("script.py",)], rounds, least, seconds)
    assert answers == {("script.py",): [1] * taken}


def goal_of(frame: ModuleType, **changes: object) -> object:
    settings = {"what": "a step", "script": "s.py", "contender": "mine", "base": "other", "must": 1.0, "aim": 0.75}
    return frame.Goal(**{**settings, **changes})


@pytest.mark.parametrize(
    ("changes", "mine", "row"),
    [
        ({}, [2.0, 1.4, 1.5], "| a step | 0.75x (0.70x-1.00x, 3) | 1.00x | 0.75x | aim |"),
        ({}, [1.8], "| a step | 0.90x (0.90x-0.90x, 1) | 1.00x | 0.75x | yes |"),
        ({}, [2.01], "| a step | 1.005x (1.005x-1.005x, 1) | 1.00x | 0.75x | **no** |"),
        ({}, [], "| a step | failed | 1.00x | 0.75x | no |"),
        ({"better": "higher", "must": 0.5, "aim": None}, [1.0], "| a step | 0.50x (0.50x-0.50x, 1) | 0.50x |  | yes |"),
        (
            {"compare": "difference", "unit": "s", "must": None, "aim": 2.0},
            [5.0],
            "| a step | 3.0 s (3.0 s-3.0 s, 1) |  | 2.0 s | not the aim |",
        ),
        (
            {"base": None, "unit": "MB", "must": 60, "aim": None},
            [59.0],
            "| a step | 59 MB (59 MB-59 MB, 1) | 60 MB |  | yes |",
        ),
    ],
)
def test_a_row_says_the_median_of_the_turns_and_whether_the_goal_is_met(
    frame: ModuleType, changes: dict[str, object], mine: list[float], row: str
) -> None:
    goal = goal_of(frame, **changes)
    answers = {("s.py", "mine"): mine, ("s.py", "other"): [2.0] * len(mine)}
    assert frame.goal_line(goal, goal.results(answers)) == row


def test_fields_and_quick_arguments_are_those_of_the_row(frame: ModuleType) -> None:
    goal = goal_of(frame, arguments=("full",), quick=("short", "1"), field="stall", base_field="clone")
    assert goal.commands() == [("s.py", "mine", "full"), ("s.py", "other", "full")]
    assert goal.commands(quick=True) == [("s.py", "mine", "short", "1"), ("s.py", "other", "short", "1")]
    mine, other = goal.commands()
    assert goal.results({mine: [{"stall": 1.0}], other: [{"clone": 4.0, "stall": 9.0}]}) == [0.25]


def test_quick_runs_only_what_the_rows_need(frame: ModuleType) -> None:
    table = frame.Table(title="t", script="s.py", contenders=("a", "other"), base="a", unit="us")
    rows = (goal_of(frame), goal_of(frame, what="b", contender="slow", in_quick=False))
    suite = frame.Suite(tables=(table,), goals=rows)
    assert [command[1] for command in suite.commands()] == ["a", "other", "mine", "slow"]
    assert [command[1] for command in suite.commands(quick=True)] == ["mine", "other"]


def test_a_table_leaves_out_what_failed(frame: ModuleType) -> None:
    table = frame.Table(title="t", script="s.py", contenders=("a", "b"), base="b", unit="us", field="x", digits=1)
    lines = frame.table_lines(table, {("s.py", "a"): [{"x": 1.0}, {"x": 3.0}], ("s.py", "b"): [{"x": 4.0}]})
    assert lines[-2:] == ["| a | 2.0 | 1.0-3.0 | 0.50x |", "| b | 4.0 | 4.0-4.0 | 1.00x |"]
    assert frame.table_lines(table, {("s.py", "a"): [{"x": 1.0}]})[-1] == "| a | 1.0 | 1.0-1.0 | nanx |"


@pytest.mark.soak
def test_the_leaderboard_trains_every_model_and_writes_its_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, str(FOLDER / "leaderboard.py"), str(page), "4"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    rows = [line.split("|")[1:-1] for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    assert [row[1].strip() for row in rows] == ["gpt", "lstm", "spikegpt", "spikebert", "mlp", "snn", "csnn", "srnn"]
    for row in rows:
        _, name, parameters, loss, _, time, rate, energy, dense = (cell.strip() for cell in row)
        assert int(parameters.replace(",", "")) > 0
        assert float(loss) > 0
        assert float(time) > 0
        assert float(energy.replace(",", "")) > 0
        spikes = name in {"spikegpt", "spikebert", "snn", "csnn", "srnn"}
        assert bool(rate) == bool(dense) == spikes
