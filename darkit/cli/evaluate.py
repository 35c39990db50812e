"""``darkit eval``: evaluate a run's model on other data, or each checkpoint of a training as it appears."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from darkit.cli.errors import show_warnings
from darkit.cli.parsers import Subparsers, add_command, output
from darkit.cli.pipes import say
from darkit.errors import ConfigError
from darkit.runs import Run, files, load
from darkit.runs.home import expanded
from darkit.runs.inert import format_json, inert
from darkit.runs.names import split_reference
from darkit.runs.notes import OWN_DATA, Evaluation, add_evaluation
from darkit.runs.safe import as_dict, is_strange

if TYPE_CHECKING:
    from darkit.data.sources.choice import DataChoice
    from darkit.runs.checkpoints import Checkpoint

_BATCH_SIZE = 16
_EXAMPLES = """\
  darkit eval NAME                                   its own data, the validation part
  darkit eval NAME --data other-texts                a file, a folder or a pattern, as a whole
  darkit eval NAME --data digits seed=1              another choice of data=, with its settings
  darkit eval NAME --watch                           each checkpoint of a training, as it appears
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
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="samples per batch (default: 16; with --watch that of the training)"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or mps (default: the accelerator if available)")
    parser.add_argument("--watch", action="store_true", help="evaluate each checkpoint until the training has ended")
    parser.add_argument("--into", metavar="RUN", help="with --watch: the run of the results (default: NAME-eval)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print a table and append the result to the run's notes.

    Raises:
        StorageError: The result was printed, but cannot be saved in the notes.
    """
    name, checkpoint = split_reference(arguments.name)
    found = load(name)  # before the slow import of torch
    _check(arguments, checkpoint)
    from darkit.cli.compose import compose_data

    if "" not in sys.path:
        sys.path.insert(0, "")  # the data may be in the working directory
    show_warnings()
    wanted, changes = (arguments.data or [None])[0], arguments.data[1:]
    settings = compose_data(_data_settings(found, wanted), wanted, changes)
    if wanted is not None and settings.get("tokenizer", "") is None:
        settings.tokenizer = _tokenizer(found)
    described = " ".join([wanted or OWN_DATA, *changes])
    if arguments.watch:
        return _watch(found, arguments, settings, described)
    from darkit.prediction.evaluation import measure_run

    evaluation = measure_run(
        arguments.name,
        _choice(found, wanted, settings),
        described=described,
        device=arguments.device,
        batch_size=_BATCH_SIZE if arguments.batch_size is None else arguments.batch_size,
    )
    _show(arguments, evaluation)
    sys.stdout.flush()  # print the result before an error of the notes
    add_evaluation(found.path, evaluation)
    return 0


def _check(arguments: argparse.Namespace, checkpoint: str | None) -> None:
    """Check that the arguments go together. Raises `ConfigError`."""
    if arguments.into is not None and not arguments.watch:
        raise ConfigError("--into is the run of --watch. Without --watch the result is in the notes of the run.")
    if arguments.watch and checkpoint is not None:
        raise ConfigError(
            f"--watch evaluates all checkpoints: write {arguments.name.partition(':')[0]} without :{checkpoint}."
        )


def _watch(found: Run, arguments: argparse.Namespace, settings: Any, described: str) -> int:
    """Evaluate each checkpoint of a training, until that has ended."""
    from omegaconf import OmegaConf

    from darkit.cli.instantiate import make_loss
    from darkit.cli.recorded import believed_loss
    from darkit.core.watching import watch
    from darkit.engine.device import seed_generators
    from darkit.engine.log.values import number_of
    from darkit.prediction.checkpoints import CheckpointEvaluator

    seed = found.trainer_config.get("seed")
    seed_generators(seed if isinstance(seed, int) and 0 <= seed < 2**63 else 0)  # data may draw, as in the training
    choice = _choice(found, (arguments.data or [None])[0], settings)
    _refuse_other_evaluation(found, choice)
    recorded = believed_loss(found)
    loss = make_loss(OmegaConf.create(recorded) if isinstance(recorded, dict) else recorded)
    evaluator = CheckpointEvaluator(found, choice, loss=loss, device=arguments.device, batch_size=arguments.batch_size)
    config = evaluator.config
    used = {"device": config.device, "batch_size": config.batch_size, "eval_iters": config.eval_iters}

    def tell(checkpoint: Checkpoint, values: dict[str, Any] | str) -> None:
        if isinstance(values, str):
            warnings.warn(f"{checkpoint.name} is not evaluated. {values}", stacklevel=2)
            return
        numbers = {key: float(number) for key, value in values.items() if (number := number_of(key, value)) is not None}
        if arguments.json:
            say(format_json({"checkpoint": checkpoint.name, "step": checkpoint.step, "metrics": numbers}, indent=None))
        else:
            say(f"{checkpoint.name}  " + "  ".join(f"{inert(key)} {value:.4f}" for key, value in numbers.items()))

    into = arguments.into or f"{found.name}-eval"
    try:
        watch(found, evaluator.evaluate, into=into, config={"data": described, **used}, tell=tell)
    finally:
        evaluator.close()
    return 0


def _refuse_other_evaluation(found: Run, choice: DataChoice) -> None:
    """Refuse a run whose evaluations cannot be repeated from what it recorded. Raises `ConfigError`."""
    from darkit.engine.steps.objective import callable_path

    instead = f"darkit eval {found.name}:CHECKPOINT evaluates one checkpoint with the loss of the data or the model."
    if "lightning" in found.trainer_config:
        raise ConfigError(
            f"The run {found.name!r} was trained by Lightning's own loop, which averages an evaluation in its own way, "
            f"so --watch would give other values than the training. {instead}"
        )
    given = as_dict(found.info.get("objective"))
    loss, metrics = given.get("loss"), as_dict(given.get("metrics"))
    is_known = hasattr(choice.loss, "__qualname__") and loss == callable_path(choice.loss) and "<" not in str(loss)
    parts = [
        *([f"loss={inert(loss)}"] if loss is not None and not is_known else []),
        *([f"metrics= ({inert(', '.join(metrics))})"] if metrics else []),
        *(["a validate() of its trainer"] if given.get("validate") else []),
    ]
    if parts:
        raise ConfigError(
            f"The run {found.name!r} was trained with {' and '.join(parts)}, which only its script has, so --watch "
            f"would give other values than the training. {instead}"
        )


def _choice(found: Run, wanted: str | None, settings: Any) -> DataChoice:
    """Make the data to evaluate on. Raises `ConfigError` if it is the run's own, of which no part is for validation."""
    from darkit.cli.instantiate import make_choice

    choice = make_choice(settings)
    if wanted is None and choice.val is None:
        raise ConfigError(f"The run {found.name!r} has no validation data. Give some: --data NAME KEY=VALUE.")
    return choice


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
