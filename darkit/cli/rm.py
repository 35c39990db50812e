"""``darkit rm``: moves runs to the trash, and empties it."""

from __future__ import annotations

import argparse
import shlex
import time

from rich.filesize import decimal

from darkit.cli.asking import add_yes, age, agreed
from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.errors import ConfigError, RunLockedError
from darkit.runs import base, load
from darkit.runs.ended import is_running
from darkit.runs.inert import inert
from darkit.runs.trash import delete_for_good, list_trash, move_to_trash, remove_leftovers
from darkit.runs.usage import size_of

_EXAMPLES = """\
  darkit rm NAME NAME                          move two runs to the trash; `darkit restore` brings them back
  darkit rm --empty-trash                      delete what is in the trash for good
  darkit rm --empty-trash --older-than 30d     only what was deleted at least 30 days ago
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "rm", run, "move runs to the trash, or empty it", _EXAMPLES)
    parser.add_argument("names", metavar="NAME", nargs="*", help="a run's full name")
    parser.add_argument("--empty-trash", action="store_true", help="delete what is in the trash for good")
    parser.add_argument("--older-than", type=age, metavar="AGE", help="with --empty-trash: the age since the deletion")
    add_yes(parser)


def run(arguments: argparse.Namespace) -> int:
    """Move the runs, or empty the trash.

    Raises:
        ConfigError: The arguments do not go together.
        RunLockedError: One of the runs is running; then none is moved.
    """
    if arguments.empty_trash == bool(arguments.names):
        raise ConfigError("Name runs to move them to the trash, or give --empty-trash alone.")
    if arguments.empty_trash:
        return _empty(arguments)
    if arguments.older_than is not None:
        raise ConfigError("--older-than goes with --empty-trash. `darkit prune` removes by age.")
    found = [load(name) for name in dict.fromkeys(arguments.names)]
    for one in found:
        if is_running(one.path):
            raise RunLockedError(f"The run {one.name!r} is running. Stop it first: darkit stop {shlex.quote(one.name)}")
    for one in found:
        moved = move_to_trash(base(), one.name)
        say(f"Moved {one.name} to {moved}. `darkit restore` brings it back.")
    return 0


def _empty(arguments: argparse.Namespace) -> int:
    root, now = base(), time.time()
    going = [one for one in list_trash(root) if now - one.time >= (arguments.older_than or 0.0)]
    if not going:
        remove_leftovers(root)
        say("The trash has nothing to delete.")
        return 0
    size = decimal(sum(size_of(one.folder) for one in going))
    count = f"{len(going)} run{'' if len(going) == 1 else 's'}"
    names = ", ".join(inert(one.name) for one in going[:10]) + (", ..." if len(going) > 10 else "")
    if not agreed(f"Delete {count} in the trash for good ({names}; {size})?", arguments):
        say("Nothing was deleted.")
        return 1
    delete_for_good(going)
    remove_leftovers(root)
    say(f"Deleted {count} for good, {size}.")
    return 0
