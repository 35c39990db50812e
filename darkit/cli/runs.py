"""``darkit runs``: the list of runs."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from darkit.cli.errors import show_warnings
from darkit.cli.parsers import Subparsers, add_command, output
from darkit.errors import StorageError
from darkit.runs import Run, base, files, list_runs
from darkit.runs.home import format_time
from darkit.runs.inert import format_json, inert
from darkit.runs.log import last_values
from darkit.runs.status import FINISHED

STATE_STYLES = {"running": "green", "finished": "blue", "stopped": "yellow", "crashed": "red", "stalled": "magenta"}
_GAP = 2
_LONGEST_CELL = 60  # characters of a text from a run
_RIGHT = ("step", "train loss", "val loss")
_FIRST_TO_GO = ("model", "started", "train loss", "step", "val loss")  # dropped first on a narrow terminal
_EXAMPLES = """\
  darkit runs                 a table, newest first
  darkit runs --json          the same for programs
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "runs", run, "list the runs, newest first", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print a row for each run."""
    show_warnings()
    rows = [summary(found) for found in list_runs()]
    if arguments.json:
        print(format_json(rows))
        return 0
    console = output()
    if not rows:
        console.print(f"No runs yet in {base()}. `darkit train` makes one.", markup=False, soft_wrap=True)
        return 0
    console.print(_table([_cells(row) for row in rows], console.width))
    console.print(f"in {base()}", style="dim", markup=False, soft_wrap=True)
    return 0


def summary(found: Run) -> dict[str, Any]:
    """Return the facts of one run for the list. A log that cannot be read is a warning."""
    details = found.details
    try:
        last = last_values(found.path / files.LOG)
    except StorageError as error:
        warnings.warn(inert(error), stacklevel=2)
        last = {}
    return {
        "name": found.name,
        "state": details.state,
        "reason": details.reason,
        "model": found.model_class.rpartition(".")[2],
        "step": details.step,
        "max_step": details.max_step,
        "train_loss": _parsed(last.get("train_loss")),
        "val_loss": _parsed(last.get("val_loss")),
        "created": found.created,
        "path": str(found.path),
    }


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "name": row["name"],
        "state": inert(row["state"][:_LONGEST_CELL]),
        "model": inert(row["model"][:_LONGEST_CELL]),
        "step": _step(row),
        "train loss": _number(row["train_loss"]),
        "val loss": _number(row["val_loss"]),
        "started": format_time(row["created"], "%Y-%m-%d %H:%M"),
    }


def _step(row: dict[str, Any]) -> str:
    if row["max_step"] is None and row["state"] == FINISHED:
        return str(row["step"])  # the last one
    return f"{row['step']}/{row['max_step'] or '?'}"


def _table(rows: list[dict[str, str]], width: int) -> Table:
    """Lay out the rows; drop columns rather than cut a name, which people copy."""
    widths = {name: max(cell_len(name), *(cell_len(row[name]) for row in rows)) for name in rows[0]}
    for name in _FIRST_TO_GO:
        if sum(widths.values()) + _GAP * (len(widths) - 1) <= width:
            break
        del widths[name]
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for name, size in widths.items():
        table.add_column(
            name,
            justify="right" if name in _RIGHT else "left",
            overflow="fold",
            min_width=size if name != "name" else None,
        )
    for row in rows:
        table.add_row(*(Text(row[name], STATE_STYLES.get(row[name], "") if name == "state" else "") for name in widths))
    return table


def _parsed(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
