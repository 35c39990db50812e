"""``darkit restore``: brings a run back from the trash."""

from __future__ import annotations

import argparse

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.cli.pipes import say
from darkit.errors import ConfigError
from darkit.runs import base
from darkit.runs.home import format_time
from darkit.runs.inert import format_json, inert
from darkit.runs.trash import Deleted, list_trash, restore
from darkit.runs.usage import size_of

_EXAMPLES = """\
  darkit restore                                     list what is in the trash
  darkit restore NAME                                bring back the run that was deleted last under this name
  darkit restore NAME --deletion 20261124-153012-1   an earlier one, as the list names it
  darkit restore NAME --as OTHER                     under another name
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "restore", run, "bring a run back from the trash", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", nargs="?", help="the name that the run had; without it, the list")
    parser.add_argument("--as", dest="new", metavar="NEW", help="its new name")
    parser.add_argument("--deletion", metavar="ID", help="which deletion of that name (default: the latest)")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Bring the run back, or list the trash. Raises `ConfigError` where the arguments do not go together."""
    root = base()
    if arguments.name is None:
        if arguments.new is not None or arguments.deletion is not None:
            raise ConfigError("Name the run to restore. `darkit restore` alone lists the trash.")
        return _list(list_trash(root), as_json=arguments.json)
    if arguments.json:
        raise ConfigError("--json goes with the list: `darkit restore --json`.")
    others = [one for one in list_trash(root) if one.name == arguments.name]
    found = restore(root, arguments.name, new=arguments.new, deletion=arguments.deletion)
    more = len(others) - 1
    rest = f" {more} other deletion{'s' if more > 1 else ''} of that name remain in the trash." if more > 0 else ""
    say(f"Restored {found.name if arguments.new is None else arguments.new}, deleted {_moment(found)}.{rest}")
    return 0


def _list(all_deleted: list[Deleted], *, as_json: bool) -> int:
    rows = [(one, size_of(one.folder)) for one in all_deleted]
    if as_json:
        keys = ("name", "deletion", "time", "path", "bytes")
        print(format_json([dict(zip(keys, (*vars(one).values(), size), strict=True)) for one, size in rows]))
        return 0
    console = output()
    if not rows:
        console.print("The trash is empty.")
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("name", "deleted", "size", "deletion"):
        table.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
    for one, size in rows:
        table.add_row(*map(Text, (inert(one.name), _moment(one), decimal(size), inert(one.deletion))))
    console.print(table)
    return 0


def _moment(one: Deleted) -> str:
    return format_time(one.time, "%Y-%m-%d %H:%M:%S")
