"""``darkit show``: one run, for a person at a terminal."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from darkit.cli.graph import print_graph
from darkit.cli.parsers import Subparsers, add_command, output
from darkit.cli.runs import STATE_STYLES
from darkit.cli.spiking import print_receipt, write_receipt
from darkit.errors import ConfigError, listing
from darkit.runs import Run, files, load
from darkit.runs.best import best_mode, best_value
from darkit.runs.checkpoints import Checkpoint
from darkit.runs.console import read_console
from darkit.runs.energy import energy_of
from darkit.runs.failure import place_of_failure
from darkit.runs.home import format_time
from darkit.runs.inert import format_json, inert
from darkit.runs.lineage import describe_fork, forks_of
from darkit.runs.numbers import number_text
from darkit.runs.safe import finite_number
from darkit.runs.spikes import recorded_spikes
from darkit.runs.work import read_work, steps_per_second, work_facts

_MOST_CHECKPOINTS = 5
_MOST_FORKS = 10
_MOST_PROBLEMS = 10  # of an import
_MOST_COLUMNS = 20  # that are shown of a run without series
_CLOCK = ("step", "epoch", "time")
_EXAMPLES = """\
  darkit show gpt-20261124-153012
  darkit show gpt-20261124-153012 --json
  darkit show gpt-20261124-153012 --console
  darkit show snn-20261124-153012 --spiking
  darkit show snn-20261124-153012 --spiking -o receipt.html
  darkit show snn-20261124-153012 --graph
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "show", run, "show one run: state, losses, checkpoints and configs", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON")
    how.add_argument("--console", action="store_true", help="print what the run's process printed")
    how.add_argument("--spiking", action="store_true", help="print the receipt of a spiking model")
    how.add_argument("--graph", action="store_true", help="print the model's modules with shapes and parameters")
    page = parser.add_argument_group("the receipt as a page")
    page.add_argument("-o", "--output", type=Path, metavar="PATH", help="with --spiking: write it as HTML to print")
    page.add_argument("--force", action="store_true", help="replace PATH if it is there")
    page.add_argument("--language", choices=("en", "zh"), default="en", help="default: en")


def run(arguments: argparse.Namespace) -> int:
    """Print the state, losses, checkpoints and configs.

    Raises:
        ConfigError: ``--output`` without ``--spiking``, or the run has no receipt.
        RunExistsError: The file exists.
    """
    if arguments.output is not None and not arguments.spiking:
        raise ConfigError("--output writes the receipt of a spiking model: give --spiking with it.")
    found = load(arguments.name)
    if arguments.json:
        print(format_json(_as_json(found)))
        return 0
    if arguments.console:
        print(inert(read_console(found.path), lines=True), end="")
        return 0
    console = output()
    if arguments.output is not None:
        size = write_receipt(found, arguments.output, arguments.language, replace=arguments.force)
        print(f"Wrote {arguments.output}, {size / 1e3:.0f} kB.")
        return 0
    if arguments.spiking:
        print_receipt(found, console)
        return 0
    if arguments.graph:
        print_graph(found, console)
        return 0
    details = found.details
    console.print(Text(found.name, "bold"), Text(inert(details.state), STATE_STYLES.get(details.state, "")))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(found):
        table.add_row(Text(inert(name)), Text(inert(value)))
    console.print(table)
    for title, values in (("config", found.config), ("trainer config", found.trainer_config)):
        if values:
            console.print(Text(title, "bold"))
            shown = ", ".join(f"{inert(key)}={format_json(value, indent=None)}" for key, value in values.items())
            console.print(Text(shown))
    if details.traceback:
        if place := place_of_failure(details.traceback):
            console.print(Text("where it failed", "bold"))
            console.print(Text(inert(place), "red"), soft_wrap=True)
        console.print(Text("traceback", "bold"))
        console.print(Text(details.traceback.rstrip(), "red"), soft_wrap=True)
    return 0


def _facts(found: Run) -> Iterator[tuple[str, str]]:
    details, info = found.details, found.info
    yield "path", str(found.path)
    yield "model", found.model_class
    yield "step", str(details.step) if details.max_step is None else f"{details.step} of {details.max_step}"
    if details.reason:
        yield "reason", details.reason
    yield from _origin(found.origin)
    yield from describe_fork(found.fork)
    forks = forks_of(found.path, found.info.get("id"))
    if forks:
        more = f", and {len(forks) - _MOST_FORKS} more; --json lists all" if len(forks) > _MOST_FORKS else ""
        yield "forks", ", ".join(f"{name} (from {start})" for name, start in forks[:_MOST_FORKS]) + more
    yield from (("loss spike", str(spike)) for spike in recorded_spikes(info))
    if found.created:
        yield "started", format_time(found.created, "%Y-%m-%d %H:%M:%S")
    log, trainer = found.log(), found.trainer_config
    series = found.series or {name: ["step", name] for name in log.columns[:_MOST_COLUMNS] if name not in _CLOCK}
    for name, (_, column) in series.items():
        values = log.get_column(column).alias("values").drop_nulls() if column in log.columns else None
        if values is not None and len(values) and values.dtype.is_numeric():
            best, last = best_value(values, best_mode(trainer, name, column)), f"last {number_text(values[-1], 4)}"
            yield name, last if best is None else f"best {number_text(best, 4)}, {last}"
    if (work := read_work(info)) is not None:
        yield from work_facts(work, steps_per_second(log))
    if (energy := energy_of(found.path)) is not None:
        yield "energy", str(energy)
    checkpoints = found.checkpoints()
    if len(checkpoints) > _MOST_CHECKPOINTS:
        yield "checkpoint", f"{len(checkpoints) - _MOST_CHECKPOINTS} earlier; --json lists all"
    for checkpoint in checkpoints[-_MOST_CHECKPOINTS:]:
        yield "checkpoint", _checkpoint(checkpoint)
    command, git = info.get("command"), info.get("git")
    if isinstance(command, list) and command:
        yield "command", shlex.join(map(str, command))
    if isinstance(git, dict) and git:
        yield "git", _git(git)
    packages = found.environment.get("packages")
    if isinstance(packages, dict) and packages:
        yield "packages", f"{len(packages)}, with their versions in {files.ENVIRONMENT}"


def _origin(origin: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if origin:
        moment = format_time(finite_number(origin.get("imported_at")) or 0.0, "%Y-%m-%d %H:%M:%S")
        yield "imported", f"{moment} from {origin.get('kind')}: {origin.get('path')}"
    problems = origin.get("problems")
    for problem in problems[:_MOST_PROBLEMS] if isinstance(problems, list) else []:
        yield "left out", str(problem)


def _git(git: dict[str, Any]) -> str:
    text = str(git.get("commit") or "no commit yet") + (" with changes" if git.get("diff") else "")
    untracked = git.get("untracked")
    if isinstance(untracked, list) and untracked:
        text += f", untracked files: {listing([str(name) for name in untracked])}"
    return text


def _checkpoint(checkpoint: Checkpoint) -> str:
    metrics = "  ".join(f"{name} {number_text(value, 4)}" for name, value in checkpoint.metrics.items())
    return f"{checkpoint.name}  {decimal(checkpoint.size)}  {checkpoint.problem or metrics}".rstrip()


def _as_json(found: Run) -> dict[str, Any]:
    details = found.details
    return {
        "name": found.name,
        "path": found.path,
        "status": vars(details),
        "info": found.info,
        "fork": found.fork,
        "forks": [{"name": name, "checkpoint": start} for name, start in forks_of(found.path, found.info.get("id"))],
        "energy": vars(energy) if (energy := energy_of(found.path)) is not None else None,
        "packages": found.environment.get("packages", {}),
        "config": found.config,
        "trainer_config": found.trainer_config,
        "checkpoints": [
            {"name": item.name, "step": item.step, "size": item.size, "metrics": item.metrics, "problem": item.problem}
            for item in found.checkpoints()
        ],
    }
