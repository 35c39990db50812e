"""``darkit eval``: evaluate a run's model on other data."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.table import Table
from rich.text import Text

from darkit.cli.errors import show_warnings
from darkit.cli.parsers import Subparsers, add_command, output
from darkit.errors import ConfigError
from darkit.runs import Run, files, load
from darkit.runs.home import expanded
from darkit.runs.inert import format_json, inert
from darkit.runs.names import split_reference
from darkit.runs.notes import OWN_DATA, Evaluation, add_evaluation
from darkit.runs.safe import is_strange

_EXAMPLES = """\
  darkit eval NAME                                   its own data, the validation part
  darkit eval NAME --data other-texts                a file, a folder or a pattern, as a whole
  darkit eval NAME --data digits seed=1              another choice of data=, with its settings
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "eval", run, "evaluate a run's model, and note the result", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name, or NAME:CHECKPOINT")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar=("DATA", "KEY=VALUE"),
        help="files, or a data= choice with its settings (default: the run's own data)",
    )
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="samples per batch (default: 16)")
    parser.add_argument("--device", help="auto, cpu, cuda or mps (default: the accelerator if available)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print a table and append the result to the run's notes.

    Raises:
        StorageError: The result was printed, but cannot be saved in the notes.
    """
    name, _ = split_reference(arguments.name)
    found = load(name)  # before the slow import of torch
    from darkit.cli.compose import compose_data
    from darkit.cli.instantiate import make_choice
    from darkit.prediction.evaluation import measure_run

    if "" not in sys.path:
        sys.path.insert(0, "")  # the data may be in the working directory
    show_warnings()
    wanted, changes = (arguments.data or [None])[0], arguments.data[1:]
    settings = compose_data(_data_settings(found, wanted), wanted, changes)
    if wanted is not None and settings.get("tokenizer", "") is None:
        settings.tokenizer = _tokenizer(found)
    described = " ".join([wanted or OWN_DATA, *changes])
    evaluation = measure_run(
        arguments.name,
        make_choice(settings),
        described=described,
        device=arguments.device,
        batch_size=arguments.batch_size,
    )
    _show(arguments, evaluation)
    sys.stdout.flush()  # print the result before an error of the notes
    add_evaluation(found.path, evaluation)
    return 0


def _show(arguments: argparse.Namespace, evaluation: Evaluation) -> None:
    checkpoint, metrics = evaluation.checkpoint, evaluation.metrics
    if arguments.json:
        result = {"name": arguments.name, "checkpoint": checkpoint, "data": evaluation.data, "metrics": dict(metrics)}
        print(format_json(result, indent=None))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for key, value in metrics.items():
        table.add_row(Text(inert(key)), f"{value:.4f}")
    console = output()
    name, _ = split_reference(arguments.name)
    evaluated = f"{name}:{checkpoint}" if checkpoint else name
    console.print(f"{evaluated} on {evaluation.data}", style="bold", markup=False)
    console.print(table)


def _data_settings(found: Run, wanted: str | None) -> dict[str, Any] | None:
    """Return the settings of the data to evaluate on, or None for the name of a choice."""
    from darkit.cli.recorded import believed_data
    from darkit.data.sources.source import is_place

    if wanted is not None and not is_place(wanted):
        return None
    data = believed_data(found, elsewhere=wanted is not None)
    if wanted is None:
        if data.get("tokenizer") is not None:  # the run's own copy
            data["tokenizer"] = _tokenizer(found)
        return data
    if data["_target_"] == "darkit.data.text_data":  # the embedded text; other text is in files
        data = {"_target_": "darkit.data.text_files", "context_length": data.get("context_length", 128)}
    elif "path" not in data:
        raise ConfigError(f"The run {found.name!r} was not trained with files, but with {data['_target_']}.")
    whole = {"path": str(expanded(wanted)), "val_fraction": 0, "val_files": None}
    known = {key: value for key, value in whole.items() if key in data or key in ("path", "val_fraction")}
    tokenizer = _tokenizer(found)
    return {**data, **known, **({"tokenizer": tokenizer} if tokenizer else {})}


def _tokenizer(found: Run) -> str | None:
    """Return the path of the run's tokenizer, or None."""
    places = (found.path / files.TOKENIZER_FOLDER, found.path / files.TOKENIZER)
    return next((str(place) for place in places if place.exists() and not is_strange(place)), None)
