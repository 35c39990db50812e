"""``darkit mv``: renames a run."""

from __future__ import annotations

import argparse

from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.runs import base, load
from darkit.runs.rename import rename_run

_EXAMPLES = """\
  darkit mv OLD NEW           rename a run; a resume, predictions and exports then use the new name
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "mv", run, "rename a run", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name")
    parser.add_argument("new", metavar="NEW", help="its new name")


def run(arguments: argparse.Namespace) -> int:
    """Rename the run."""
    found = load(arguments.name)
    rename_run(base(), found.name, arguments.new)
    say(f"Renamed {found.name} to {arguments.new}.")
    return 0
