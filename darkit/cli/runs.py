"""``darkit runs``: the list of runs."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from darkit.cli.errors import show_warnings
from darkit.cli.parsers import Subparsers, add_command, output
from darkit.errors import RunNotFoundError, nearest
from darkit.runs import base
from darkit.runs.home import format_time
from darkit.runs.inert import format_json, inert
from darkit.runs.listing import Listed, list_facts
from darkit.runs.names import check_project
from darkit.runs.numbers import number_text
from darkit.runs.roots import Root
from darkit.runs.status import FINISHED

STATE_STYLES = {"running": "green", "finished": "blue", "stopped": "yellow", "crashed": "red", "stalled": "magenta"}
_GAP = 2
_LONGEST_CELL = 60  # characters of a text from a run
_SHORTEST_NAME = 8  # characters of a name in one line
_RIGHT = ("step", "train loss", "val loss")
_FIRST_TO_GO = ("model", "project", "started", "train loss", "step", "val loss")  # dropped first on a narrow terminal
_EXAMPLES = """\
  darkit runs                 a table, newest first
  darkit runs 'val_loss<0.3 state:finished'
                              those that a query asks for
  darkit runs --project P     those of one project
  darkit runs --json          the same for programs
  darkit runs --home ssh://gpu-box/home/me/darkit
                              those of another home, which is only read
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "runs", run, "list the runs, newest first", _EXAMPLES)
    parser.add_argument("query", nargs="*", metavar="QUERY", help="as above the table of the dashboard (docs/query.md)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--home", metavar="HOME", help="another home: a folder, or at ssh://, s3:// or file://")
    parser.add_argument("--project", metavar="P", help="list only the runs of this project")


def run(arguments: argparse.Namespace) -> int:
    """Print a row for each run.

    Raises:
        QueryError: The query cannot be read, or names what no run has.
        RunNotFoundError: No run belongs to the project.
    """
    show_warnings()
    own = (base(), str(base()), False, None)
    root, place, copied, seen = own if arguments.home is None else _other(arguments.home)
    found = list_facts(root, copied=copied, seen=seen)
    if arguments.project is not None:
        found = _of_project(found, check_project(arguments.project))
    query = " ".join(arguments.query).strip()
    if query:
        names = _matching(root, query, copied=copied, seen=seen)
        found = [one for one in found if one.name in names]
    if arguments.json:
        print("[" + ",\n ".join([format_json(one.as_json(root), indent=None) for one in found]) + "]")
        return 0
    console = output()
    if not found and query:
        console.print(f"No run in {place} matches {inert(query)!r}.", markup=False, soft_wrap=True)
        return 0
    if not found:
        console.print(f"No runs yet in {place}. `darkit train` makes one.", markup=False, soft_wrap=True)
        return 0
    console.print(RunTable(found), crop=False)
    console.print(f"in {place}", style="dim", markup=False, soft_wrap=True)
    return 0


def _other(text: str) -> tuple[Path, str, bool, float | None]:
    """Return the runs' folder of another home, its address, whether it is a copy, and of when; warn if it is old."""
    from darkit.remote.homes import look_once

    root, state, copied = look_once(text)
    problem = f"{state.address}: {inert(state.problem)}." if state.problem else ""
    if state.failing is not None:
        moment = format_time(state.seen or 0.0, "%Y-%m-%d %H:%M:%S")
        problem = f"{state.address} is not reachable: {inert(state.problem)}. It is shown as it was {moment}."
    if problem:
        warnings.warn(problem, stacklevel=2)
    return root, state.address if copied else str(root), copied, state.seen


def _matching(root: Path, query: str, *, copied: bool, seen: float | None) -> set[str]:
    """Return the names of the runs that a query asks for. Raises `QueryError`."""
    from darkit.dashboard.reading.asked import find
    from darkit.dashboard.reading.cache import LogCache
    from darkit.dashboard.reading.library import Library

    since = None if seen is None else time.monotonic() - (time.time() - seen)
    where = Root(root, writable=False, seen=lambda _: since) if copied else Root(root)
    return {entry.name for entry in find(Library([where], LogCache()), query)}


def _of_project(found: Sequence[Listed], project: str) -> list[Listed]:
    """Return the runs of a project. Raises `RunNotFoundError` where no run belongs to it."""
    chosen = [one for one in found if one.project == project]
    if not chosen:
        known = {one.project for one in found if one.project}
        raise RunNotFoundError(f"No run belongs to the project {project!r}. {nearest(project, known)}.")
    return chosen


class RunTable:
    """A table of runs, as wide as the console: columns are left out rather than a name cut, which people copy.

    Rich's own table takes seconds for thousands of rows.

    Args:
        runs: At least one.
    """

    def __init__(self, runs: Sequence[Listed]) -> None:
        self._rows = [_cells(one) for one in runs]
        if not any(row["project"] for row in self._rows):
            for row in self._rows:
                del row["project"]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        widths = self._widths(options.max_width)
        styles = {state: console.get_style(style) for state, style in STATE_STYLES.items()}
        yield Segment(_line({name: name for name in widths}, widths).rstrip() + "\n", console.get_style("bold"))
        for row in self._rows:
            first, *rest = (
                chop_cells(row["name"], widths["name"]) if _cells_of(row["name"]) > widths["name"] else [row["name"]]
            )
            yield Segment(_padded(first, widths["name"]) + " " * _GAP)
            yield Segment(_padded(row["state"], widths["state"]), styles.get(row["state"]))
            others = {name: size for name, size in widths.items() if name not in ("name", "state")}
            yield Segment((" " * _GAP + _line(row, others)).rstrip() + "\n")
            for piece in rest:
                yield Segment(f"{piece}\n")

    def _widths(self, width: int) -> dict[str, int]:
        """Return the width of each column that is shown."""
        widths = {name: max(len(name), *(_cells_of(row[name]) for row in self._rows)) for name in self._rows[0]}
        for name in _FIRST_TO_GO:
            if sum(widths.values()) + _GAP * (len(widths) - 1) <= width:
                break
            widths.pop(name, None)
        others = sum(widths.values()) - widths["name"] + _GAP * (len(widths) - 1)
        widths["name"] = min(widths["name"], max(_SHORTEST_NAME, width - others))
        return widths


def _line(row: dict[str, str], widths: dict[str, int]) -> str:
    return (" " * _GAP).join(_padded(row[name], size, right=name in _RIGHT) for name, size in widths.items())


def _padded(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - _cells_of(text))
    return space + text if right else text + space


def _cells_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else cell_len(text)


def _cells(one: Listed) -> dict[str, str]:
    return {
        "name": one.name,
        "state": inert(one.state[:_LONGEST_CELL]),
        "project": one.project,
        "model": inert(one.model[:_LONGEST_CELL]),
        "step": _step(one),
        "train loss": _number(one.train_loss),
        "val loss": _number(one.val_loss),
        "started": format_time(one.created, "%Y-%m-%d %H:%M"),
    }


def _step(one: Listed) -> str:
    if one.max_step is None and one.state == FINISHED:
        return str(one.step)  # the last one
    return f"{one.step}/{one.max_step or '?'}"


def _number(value: float | None) -> str:
    return "" if value is None else number_text(value, 4)
