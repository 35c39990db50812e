"""``darkit du``: what takes the space."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.remote.homes import cache_folder
from darkit.runs import base, load
from darkit.runs.inert import format_json, inert
from darkit.runs.trash import TRASH, trashes
from darkit.runs.usage import KINDS, measure, run_folders, size_of

_EXAMPLES = """\
  darkit du                   all runs, the largest first, the trash and the rest of the darkit home
  darkit du NAME NAME         these runs
  darkit du --json            the same for programs
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "du", run, "show how much space runs take", _EXAMPLES)
    parser.add_argument("names", metavar="NAME", nargs="*", help="a run; without one, all runs")
    parser.add_argument("--json", action="store_true", help="print bytes as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print a row for each run, and the sums."""
    root = base()
    folders = [load(name).path for name in dict.fromkeys(arguments.names)] or run_folders(root)
    found = sorted(map(measure, folders), key=lambda usage: (-usage.total, usage.folder.name))
    rows: list[dict[str, Any]] = [{"name": usage.folder.name, **usage.kinds, "total": usage.total} for usage in found]
    rest = {} if arguments.names else _rest(root)
    if arguments.json:
        print(format_json({"runs": rows, **rest, "total": sum(row["total"] for row in rows) + _sum(rest)}))
        return 0
    console = output()
    if rows:
        console.print(_table(rows))
    others = {"trash": rest["trash"], "copies of other homes": rest["copies"], **rest["home"]} if rest else {}
    for name, size in others.items():
        if size:
            console.print(f"{inert(name)}  {decimal(size)}", style="dim", markup=False, soft_wrap=True)
    shown = f"{len(rows)} run{'' if len(rows) == 1 else 's'}, {decimal(sum(row['total'] for row in rows))}"
    console.print(f"{shown} in {root}", style="dim", markup=False, soft_wrap=True)
    return 0


def _rest(root: Path) -> dict[str, Any]:
    """Return the bytes of the trash, of copies of other homes, and of everything in the home that is no run."""
    home = root.parent
    try:
        others = sorted(path for path in home.iterdir() if path.name not in (root.name, TRASH))
    except OSError:
        others = []
    return {
        "trash": sum(map(size_of, trashes(root))),
        "copies": size_of(cache_folder()),
        "home": {path.name: size_of(path) for path in others},
    }


def _sum(rest: Mapping[str, Any]) -> int:
    return rest["trash"] + rest["copies"] + sum(rest["home"].values()) if rest else 0


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("name", overflow="fold")
    for kind in ("total", *KINDS):
        table.add_column(kind, justify="right", no_wrap=True)
    for row in rows:
        sizes = (decimal(row[kind]) if row[kind] else "" for kind in ("total", *KINDS))
        table.add_row(Text(inert(row["name"])), *map(Text, sizes))
    return table
