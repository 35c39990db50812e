"""``darkit verify``: whether every checkpoint of a run is what it was."""

from __future__ import annotations

import argparse

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.cli.pipes import tolerate_closed_output
from darkit.runs import load
from darkit.runs.checkpoints import Checkpoint
from darkit.runs.verify import find_problem

_EXAMPLES = """\
  darkit verify NAME          exit code 0 when all are whole, 1 when one is not
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", run, "check every checkpoint of a run against its manifest", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name")


def run(arguments: argparse.Namespace) -> int:
    """Read every checkpoint and prints a row for each."""
    found = load(arguments.name)
    console = output()
    checkpoints = found.checkpoints()
    if not checkpoints:
        console.print(f"The run {found.name!r} has no checkpoint yet.", markup=False, soft_wrap=True)
        return 0
    table = Table("checkpoint", "size", "result", box=None, padding=(0, 2, 0, 0))
    failed = 0
    for checkpoint in checkpoints:
        problem = find_problem(checkpoint)
        if problem and not checkpoint.path.exists():  # a training has deleted it since it was listed
            continue
        failed += bool(problem)
        table.add_row(checkpoint.name, decimal(checkpoint.size), _verdict(checkpoint, problem))
    with tolerate_closed_output():  # the exit code reports the result in any case
        console.print(table)
    return 1 if failed else 0


def _verdict(checkpoint: Checkpoint, problem: str) -> Text:
    if problem:
        return Text(f"damaged: {problem}", "red")
    if not checkpoint.verified:
        return Text("whole by its CRCs, but it has no manifest", "yellow")
    return Text("verified", "green")
