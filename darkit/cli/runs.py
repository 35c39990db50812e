"""``darkit runs``: what was trained."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command
from darkit.runs import Run, base, files, list_runs
from darkit.runs.log import last_row

STATE_STYLES = {"running": "green", "finished": "blue", "stopped": "yellow", "crashed": "red", "stalled": "magenta"}
_EXAMPLES = """\
  darkit runs                 a table, newest first
  darkit runs --json          the same for programs
"""


def add_parser(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "runs", run, "list the runs, newest first", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints a row for each run."""
    rows = [summary(found) for found in list_runs()]
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    console = Console(highlight=False)
    if not rows:
        console.print(f"No runs yet in {base()}. `darkit train` makes one.", markup=False, soft_wrap=True)
        return 0
    table = Table("name", "state", "model", "step", "train loss", "val loss", "started", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(
            Text(row["name"]),
            Text(row["state"], STATE_STYLES.get(row["state"], "")),
            Text(row["model"]),
            Text(f"{row['step']}/{row['max_step'] or '?'}", justify="right"),
            _number(row["train_loss"]),
            _number(row["val_loss"]),
            Text(time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))),
        )
    console.print(table)
    console.print(f"in {base()}", style="dim", markup=False, soft_wrap=True)
    return 0


def summary(found: Run) -> dict[str, Any]:
    """Collects what a list of runs shows of one."""
    details, info = found.details, found.info
    last = last_row(found.path / files.LOG)
    return {
        "name": found.name,
        "state": details.state,
        "reason": details.reason,
        "model": str(info.get("model", {}).get("class", "")).rpartition(".")[2],
        "step": details.step,
        "max_step": details.max_step,
        "train_loss": _parsed(last.get("train_loss")),
        "val_loss": _parsed(last.get("val_loss")),
        "created": info.get("created", 0.0),
        "path": str(found.path),
    }


def _parsed(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _number(value: float | None) -> Text:
    return Text("" if value is None else f"{value:.4g}", justify="right")
