"""``darkit mv``: renames a run, or moves it to a project."""

from __future__ import annotations

import argparse

from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.errors import ConfigError
from darkit.runs import base, load
from darkit.runs.notes import set_project
from darkit.runs.rename import rename_run

_EXAMPLES = """\
  darkit mv OLD NEW              rename a run; a resume, predictions and exports then use the new name
  darkit mv NAME --project P     move a run to a project
  darkit mv NAME --project ''    take it out of its project
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "mv", run, "rename a run, or move it to a project", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name")
    parser.add_argument("new", metavar="NEW", nargs="?", help="its new name")
    parser.add_argument("--project", metavar="P", help="the project to move it to; empty for none")


def run(arguments: argparse.Namespace) -> int:
    """Rename the run, or move it. Raises `ConfigError` if not one of the two is asked for."""
    new, project = arguments.new, arguments.project
    if (new is None) == (project is None):
        raise ConfigError("Give either the new name, darkit mv OLD NEW, or a project, darkit mv NAME --project P.")
    found = load(arguments.name)
    if project is not None:
        set_project(found.path, project)
        say(f"Moved {found.name} to the project {project}." if project else f"{found.name} belongs to no project.")
        return 0
    rename_run(base(), found.name, new)
    say(f"Renamed {found.name} to {new}.")
    return 0
