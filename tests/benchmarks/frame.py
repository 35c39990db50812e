"""The frame of the benchmarks: contenders in turns, tables of what they measured, and goals.

A suite is a file in ``suites/`` with a ``SUITE``: tables and goals as data. Its commands are scripts of this folder;
each runs in a process of its own and prints last a number, or numbers by name as JSON.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent
MINIMAL = FOLDER.parents[1] / "build" / "minimal" / "bin" / "python"
"""An interpreter with darkit and only what it requires. Lightning imports scipy, matplotlib and transformers where they
are installed, as they are for the tests."""

Command = tuple[str, ...]  # a script of this folder and its arguments
Answer = float | dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of contenders, each beside one of them.

    Attributes:
        title: Heading of the table.
        script: File in this folder.
        contenders: The first arguments of the script, one row each.
        base: The contender that the others are divided by.
        unit: Unit of what is measured.
        arguments: Further arguments, the same for all contenders.
        field: Name of the number, where the script prints several.
        digits: Decimal places.
    """

    title: str
    script: str
    contenders: tuple[str, ...]
    base: str
    unit: str
    arguments: tuple[str, ...] = ()
    field: str | None = None
    digits: int = 0

    def command(self, contender: str) -> Command:
        """Return the command of a row."""
        return self.script, *contender.split(), *self.arguments


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A row of the table of goals: a contender against a base, measured in the same turns.

    Attributes:
        what: What is measured, in a few words.
        script: File in this folder.
        contender: First arguments of the script.
        base: The same for what it is compared with; None when the number itself is the goal.
        must: The bound that has to hold; None when there is only an aim.
        aim: The better bound.
        arguments: Further arguments of both.
        quick: Further arguments of both in `make bench ARGS=quick`, by default the same.
        in_quick: Whether the row is measured in `make bench ARGS=quick` at all.
        field: Name of the number, where the script prints several.
        base_field: The same for the base, by default `field`.
        compare: Whether both are divided or subtracted.
        better: Whether a lower or a higher number is better.
        unit: Unit of the result.
    """

    what: str
    script: str
    contender: str
    base: str | None
    must: float | None
    aim: float | None = None
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = None
    in_quick: bool = True
    field: str | None = None
    base_field: str | None = None
    compare: Literal["ratio", "difference"] = "ratio"
    better: Literal["lower", "higher"] = "lower"
    unit: str = "x"

    def commands(self, *, quick: bool = False) -> list[Command]:
        """Return the command of the contender and, where there is one, of the base."""
        arguments = self.arguments if not quick or self.quick is None else self.quick
        words = [self.contender] if self.base is None else [self.contender, self.base]
        return [(self.script, *word.split(), *arguments) for word in words]

    def results(self, answers: dict[Command, list[Answer]], *, quick: bool = False) -> list[float]:
        """Return one result per round; none when a command failed."""
        found = [answers.get(command, []) for command in self.commands(quick=quick)]
        fields = [self.field, self.base_field or self.field]
        columns = [[_number(answer, name) for answer in rows] for rows, name in zip(found, fields, strict=False)]
        if len(columns) == 1:
            return columns[0]
        pairs = zip(*columns, strict=False)
        if self.compare == "difference":
            return [mine - other for mine, other in pairs]
        return [mine / other if other else float("nan") for mine, other in pairs]

    def holds(self, result: float, bound: float | None) -> bool:
        """Whether a result is within a bound."""
        if bound is None:
            return False
        return result <= bound if self.better == "lower" else result >= bound


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A part of the benchmarks.

    Attributes:
        tables: Tables of contenders, which only the full benchmarks print.
        goals: Rows of the table of goals.
        rounds: How many turns at most.
        least: How many turns at least, however long they take.
        seconds: No further turn is begun that would end later than this.
        quick_rounds: As `rounds`, in `make bench ARGS=quick`.
        quick_seconds: As `seconds`, in `make bench ARGS=quick`.
        program: A script that prints a table of its own and takes options, instead of tables and goals.
        short: Its options when all suites run.
    """

    tables: tuple[Table, ...] = ()
    goals: tuple[Goal, ...] = ()
    rounds: int = 5
    least: int = 3
    seconds: float = 150
    quick_rounds: int = 3
    quick_seconds: float = 20
    program: str | None = None
    short: tuple[str, ...] = ()

    def commands(self, *, quick: bool = False) -> list[Command]:
        """Return all commands once, in the order of their turns."""
        commands = [] if quick else [table.command(name) for table in self.tables for name in table.contenders]
        for goal in self.goals:
            if goal.in_quick or not quick:
                commands += goal.commands(quick=quick)
        return list(dict.fromkeys(commands))

    def once(self, *, quick: bool = False) -> set[Command]:
        """Return the commands that only tables show, where there are goals: these get the further turns."""
        asked = {command for goal in self.goals for command in goal.commands(quick=quick)}
        return set(self.commands(quick=quick)) - asked if asked else set()


@dataclass
class Turns:
    """Runs commands in turns and keeps what they printed.

    Attributes:
        folder: Where the scripts are.
        clock: Seconds, for the bound on the rounds.
        failed: Commands that failed, which are not tried again.
    """

    folder: Path = FOLDER
    clock: Callable[[], float] = time.monotonic
    failed: list[Command] = field(default_factory=list)

    def take(
        self,
        commands: Iterable[Command],
        rounds: int,
        least: int,
        seconds: float,
        once: Collection[Command] = (),
    ) -> dict[Command, list[Answer]]:
        """Run all commands once a round, and those of `once` in the first one.

        It stops before a round that would end after `seconds`, but not before `least`.
        """
        answers: dict[Command, list[Answer]] = {command: [] for command in commands}
        begin = ended = self.clock()
        for done in range(1, rounds + 1):
            for command in [one for one in answers if done == 1 or one not in once]:
                answer = self._run(command)
                if answer is None:
                    del answers[command]
                else:
                    answers[command].append(answer)
            started, ended = ended, self.clock()
            if done >= least and ended - begin + ended - started > seconds:
                break
        return answers

    def _run(self, command: Command) -> Answer | None:
        words = [sys.executable, str(self.folder / command[0]), *command[1:]]
        process = subprocess.run(words, capture_output=True, text=True, check=False)
        if process.returncode:
            self.failed.append(command)
            print(f"{' '.join(command)} failed:\n{process.stderr[-4000:]}", file=sys.stderr, flush=True)
            return None
        answer: Answer = json.loads(process.stdout.splitlines()[-1])
        return answer


def _number(answer: Answer, name: str | None) -> float:
    if isinstance(answer, dict):
        if name is None:
            raise ValueError(f"Name one of the fields {', '.join(answer)}")
        return answer[name]
    return answer


def table_lines(table: Table, answers: dict[Command, list[Answer]]) -> list[str]:
    """Return a table as Markdown: medians, their range, and the ratio to the base."""
    columns = {name: answers.get(table.command(name), []) for name in table.contenders}
    found = {name: [_number(answer, table.field) for answer in rows] for name, rows in columns.items() if rows}
    base = statistics.median(found[table.base]) if table.base in found else float("nan")
    lines = [
        f"### {table.title}\n",
        f"| contender | {table.unit}, median | range | against {table.base} |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, values in found.items():
        median, low, high = (f"{value(values):.{table.digits}f}" for value in (statistics.median, min, max))
        ratio = statistics.median(values) / (base or float("nan"))
        lines.append(f"| {name} | {median} | {low}-{high} | {ratio:.2f}x |")
    return lines


def goal_line(goal: Goal, results: list[float]) -> str:
    """Return a row of the table of goals."""
    bounds = [_text(goal, bound) for bound in (goal.must, goal.aim)]
    if not results:
        return f"| {goal.what} | failed | {bounds[0]} | {bounds[1]} | no |"
    middle = statistics.median(results)
    shown = f"{_text(goal, middle)} ({_text(goal, min(results))}-{_text(goal, max(results))}, {len(results)})"
    if goal.holds(middle, goal.aim):
        met = "aim"
    elif goal.must is None:
        met = "not the aim"
    else:
        met = "yes" if goal.holds(middle, goal.must) else "**no**"
    return f"| {goal.what} | {shown} | {bounds[0]} | {bounds[1]} | {met} |"


def _text(goal: Goal, value: float | None) -> str:
    if value is None:
        return ""
    if goal.unit == "x":
        return f"{value:.3f}x" if 0.98 < value < 1.02 and round(value, 2) != value else f"{value:.2f}x"
    return f"{value:.{0 if abs(value) >= 20 else 1 if abs(value) >= 1 else 2}f} {goal.unit}"


GOALS_HEAD = "| what | measured: median (range, rounds) | must | aim | met |\n| --- | --- | ---: | ---: | --- |"


def suites() -> dict[str, Suite]:
    """Return the suites by name, in the order in which they run."""
    order: tuple[str, ...] = importlib.import_module("suites").ORDER
    return {name: importlib.import_module(f"suites.{name}").SUITE for name in order}
