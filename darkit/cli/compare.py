"""``darkit compare``: groups of runs with different seeds, and whether they differ by more than noise."""

from __future__ import annotations

import argparse

from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.errors import ConfigError
from darkit.runs.comparison import compare
from darkit.runs.comparison_tables import Rows, document, sentences, tables
from darkit.runs.documents import FORMATS
from darkit.runs.groups import BEST, find_groups, mode_of, read_group
from darkit.runs.inert import format_json, inert
from darkit.runs.lineage import fork_line
from darkit.runs.names import check_project

_EXAMPLES = """\
  darkit compare A B                          the runs that seeds=5 made of A and of B
  darkit compare A B --metric val_accuracy --at last
  darkit compare 'gpt-*' run1,run2,run3       a pattern, and names
  darkit compare --project P                  all groups of runs that differ in the seed alone
  darkit compare A B --format latex           for a paper; also markdown and json
"""
_TERMINAL, _JSON = "table", "json"


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "compare", run, "compare groups of runs over their seeds", _EXAMPLES)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help="a name, a pattern, or names with commas; the first is the baseline"
    )
    parser.add_argument("--metric", default="val_loss", metavar="COLUMN", help="column of the log (default: val_loss)")
    parser.add_argument("--at", default=BEST, metavar="WHEN", help="best, last or a step (default: best)")
    parser.add_argument("--project", metavar="P", help="only runs of this project")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="C", help="of intervals (default: 0.95)")
    parser.add_argument("--format", choices=[_TERMINAL, *FORMATS, _JSON], default=_TERMINAL, help="(default: table)")


def run(arguments: argparse.Namespace) -> int:
    """Compare and print.

    Raises:
        ConfigError: An argument is out of range, or the groups share a run.
    """
    if not 0.5 <= arguments.confidence < 1:
        raise ConfigError(f"--confidence must be from 0.5 to below 1, not {arguments.confidence}.")
    project = None if arguments.project is None else check_project(arguments.project)
    found = find_groups(arguments.groups, project)
    groups = [read_group(label, runs, arguments.metric, arguments.at) for label, runs in found.items()]
    mode = mode_of([run for runs in found.values() for run in runs], arguments.metric)
    compared = compare(groups, arguments.metric, arguments.at, mode, arguments.confidence)
    if arguments.format == _JSON:
        print(format_json(compared.as_json()))
        return 0
    if arguments.format != _TERMINAL:
        print(document(compared, arguments.format))
        return 0
    for rows in tables(compared):
        _print(rows)
    for sentence in sentences(compared):
        print(sentence)
    for name, fork in [
        (run.name, run.fork) for runs in found.values() for run in sorted(runs, key=lambda run: run.name)
    ]:
        if fork:
            print(inert(fork_line(name, fork)))
    return 0


def _print(rows: Rows) -> None:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(rows[0]):
        table.add_column(Text(inert(column)), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(inert(cell)) for cell in row))
    output().print(table)
