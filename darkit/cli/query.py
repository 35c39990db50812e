"""``darkit query``: the runs that a query asks for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.cli.runs import STATE_STYLES
from darkit.runs import base
from darkit.runs.home import expanded
from darkit.runs.inert import format_json, inert
from darkit.runs.numbers import LOST_MARK, number_text

_LONGEST_CELL = 60  # characters of a text from a run
_EXAMPLES = """\
  darkit query "val_loss<0.3"                   a table, newest first
  darkit query "state:crashed started>yesterday" --names
  darkit query "lr=3e-4 tag:paper" --json       everything about them, for programs
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "query", run, "list the runs that a query asks for", _EXAMPLES)
    parser.add_argument("query", metavar="QUERY", help="as above the table of the dashboard; '' asks for all runs")
    parser.add_argument("--archived", action="store_true", help="archived runs too")
    parser.add_argument("--home", metavar="DIR", help="another home (default: DARWIN_KIT_HOME)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON: state, metrics, config and notes of each run")
    how.add_argument("--names", action="store_true", help="print only the names, one a line")


def run(arguments: argparse.Namespace) -> int:
    """Print the runs.

    Raises:
        QueryError: The query cannot be read, or names what no run has.
    """
    from darkit.dashboard.reading.asked import find
    from darkit.dashboard.reading.cache import LogCache
    from darkit.dashboard.reading.library import Library
    from darkit.dashboard.reading.said import run_json
    from darkit.runs.query import parse

    root = base() if arguments.home is None else expanded(arguments.home) / "base"
    library = Library(root, LogCache())
    found = [run_json(entry) for entry in find(library, arguments.query)]
    found = [one for one in found if arguments.archived or not one["archived"]]
    if arguments.json:
        print("[" + ",\n ".join(format_json(one, indent=None) for one in found) + "]")
    elif arguments.names:
        for one in found:
            print(inert(one["name"]))
    else:
        _print_table(found, list(dict.fromkeys(term.field for term in parse(arguments.query).names)))
    return 0


def _print_table(found: list[dict[str, Any]], asked: list[str]) -> None:
    """Print state, step and first metrics, and the values that the query asks for."""
    table = Table(box=None, pad_edge=False)
    columns = ("name", "state", "step", "metric", "last", "best", *asked)
    for column in columns:
        table.add_column(
            Text(inert(column)), overflow="fold", justify="right" if column in ("step", "last") else "left"
        )
    for one in found:
        name, value = next(iter(one["metrics"].items()), ("", dict[str, Any]()))
        best = number_text(value.get("best"))
        if best and one["diverged"] is not None:
            best += LOST_MARK
        cells = [one["name"], one["state"], f"{one['step']:,}", name, value.get("last"), best]
        cells += [_value(one, key) for key in asked]
        shown = [Text(inert(_shown(cell))[:_LONGEST_CELL]) for cell in cells]
        shown[0], shown[1].style = Text(inert(one["name"])), STATE_STYLES.get(one["state"], "")
        table.add_row(*shown)
    console = output()
    if found:
        console.print(table)
    console.print(f"{len(found):,} run" + "s" * (len(found) != 1), style="dim", markup=False)


def _value(one: Mapping[str, Any], key: str) -> Any:
    """Return a value that a query names: a config value by its whole key or its end, or else one of a metric."""
    part, _, name = key.rpartition(":") if key.startswith(("config:", "last:", "best:")) else ("", "", key)
    if part not in ("last", "best"):
        for known, value in one["config"].items():
            if known == name or known.endswith(f".{name}"):
                return value
    return one["metrics"].get(name, {}).get("best" if part == "best" else "last")


def _shown(value: Any) -> str:
    return "" if value is None else number_text(value) if isinstance(value, float) else str(value)
