"""``darkit show``: one run, for a person at a terminal."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.cli.runs import STATE_STYLES
from darkit.runs import Run, load
from darkit.runs.checkpoints import Checkpoint

_MOST_CHECKPOINTS = 5
_EXAMPLES = """\
  darkit show gpt-20261124-153012
  darkit show gpt-20261124-153012 --json
"""


def add_parser(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "show", run, "show one run: state, losses, checkpoints and configs", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints what there is to know."""
    found = load(arguments.name)
    if arguments.json:
        print(json.dumps(_as_json(found), indent=2, ensure_ascii=False, default=str))
        return 0
    console = output()
    details = found.details
    console.print(Text(found.name, "bold"), Text(details.state, STATE_STYLES.get(details.state, "")))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(found):
        table.add_row(name, Text(value))
    console.print(table)
    for title, values in (("config", found.config), ("trainer config", found.trainer_config)):
        if values:
            console.print(Text(title, "bold"))
            shown = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
            console.print(Text(shown))
    if details.traceback:
        console.print(Text("traceback", "bold"))
        console.print(Text(details.traceback.rstrip(), "red"), soft_wrap=True)
    return 0


def _facts(found: Run) -> Iterator[tuple[str, str]]:
    details, info = found.details, found.info
    yield "path", str(found.path)
    yield "model", str(info.get("model", {}).get("class", ""))
    yield "step", f"{details.step} of {details.max_step or '?'}"
    if details.reason:
        yield "reason", details.reason
    if info.get("created"):
        yield "started", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(info["created"]))
    log = found.log()
    for name, (_, column) in found.series.items():
        values = log[column].drop_nulls() if column in log.columns else None
        if values is not None and len(values) and values.dtype.is_numeric():
            numbers = values.to_list()
            yield name, f"best {min(numbers):.4g}, last {numbers[-1]:.4g}"
    checkpoints = found.checkpoints()
    if len(checkpoints) > _MOST_CHECKPOINTS:
        yield "checkpoint", f"{len(checkpoints) - _MOST_CHECKPOINTS} earlier ones, which --json lists"
    for checkpoint in checkpoints[-_MOST_CHECKPOINTS:]:
        yield "checkpoint", _checkpoint(checkpoint)
    if info.get("command"):
        yield "command", shlex.join(map(str, info["command"]))
    if info.get("git"):
        yield "git", info["git"]["commit"] + (" with changes" if info["git"].get("diff") else "")


def _checkpoint(checkpoint: Checkpoint) -> str:
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in checkpoint.metrics.items())
    return f"{checkpoint.name}  {decimal(checkpoint.size)}  {checkpoint.problem or metrics}".rstrip()


def _as_json(found: Run) -> dict[str, Any]:
    details = found.details
    return {
        "name": found.name,
        "path": found.path,
        "status": vars(details),
        "info": found.info,
        "config": found.config,
        "trainer_config": found.trainer_config,
        "checkpoints": [
            {"name": item.name, "step": item.step, "size": item.size, "metrics": item.metrics, "problem": item.problem}
            for item in found.checkpoints()
        ],
    }
