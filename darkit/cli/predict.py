"""``darkit predict``: a run's model on one input."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.cli.errors import show_warnings
from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.rows import check_out
from darkit.cli.terminal import text_for_output
from darkit.errors import ConfigError, ModelError
from darkit.runs import Run, load
from darkit.runs.example import example_input
from darkit.runs.inert import format_json

if TYPE_CHECKING:
    from torch import nn

    from darkit.core import Predicter

_EXAMPLES = """\
  darkit predict NAME "The import statement"
  darkit predict NAME:iter-400-ckpt "The import statement" --temperature 0 --max-new-tokens 50
  darkit predict NAME "A list of names:" --top-p 0.9 --stop "." --seed 1
  echo "The import statement" | darkit predict NAME -
  darkit predict NAME "The [MASK] statement"     for a masked model: what may be hidden there
  darkit predict NAME rows.csv --out labels.csv  for a classification or regression; also .npy, .json and .jsonl
  darkit predict NAME "[[1, 2, 3, 4]]"           numbers, as JSON, for a model without a tokenizer
"""
_SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "stop", "seed")


def add_parser(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "predict", run, "predict with a run's model", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name, or NAME:CHECKPOINT")
    parser.add_argument(
        "input", metavar="INPUT", help="a text, a file, or numbers as JSON; - reads a text or JSON from standard input"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or mps (default: the accelerator if there is one)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    text = parser.add_argument_group("text that goes on")
    text.add_argument("--max-new-tokens", type=int, default=200, metavar="N", help="tokens at most (default: 200)")
    text.add_argument(
        "--temperature", type=float, default=0.8, metavar="T", help="0 takes the likeliest token (default: 0.8)"
    )
    text.add_argument("--top-k", type=int, metavar="K", help="choose from the K likeliest tokens")
    text.add_argument("--top-p", type=float, metavar="P", help="choose from the likeliest that have P together")
    text.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given again"
    )
    text.add_argument("--seed", type=int, metavar="N", help="for the same text again")
    text.add_argument("--ctx-len", type=int, metavar="N", help="tokens that the model is to see at most")
    other = parser.add_argument_group("other models")
    other.add_argument("--top", type=int, default=5, metavar="N", help="candidates for each [MASK] (default: 5)")
    other.add_argument("--out", type=Path, metavar="FILE", help="write predictions to a .csv, .npy, .json or .jsonl")


def run(arguments: argparse.Namespace) -> int:
    """Predicts: text is streamed, candidates and tables are printed, anything else is printed as JSON."""
    found = load(arguments.name)  # before torch is paid for
    if arguments.out is not None:
        check_out(arguments.out)
    from darkit.core import Predicter
    from darkit.prediction.tasks import CLASSIFICATION, MASKED, REGRESSION

    if "" not in sys.path:
        sys.path.insert(0, "")  # a model of the working directory's
    show_warnings()
    given = _given(arguments.input)
    try:
        predicter = Predicter.from_pretrained(arguments.name, arguments.device)
    except ModelError as error:
        error.add_note(
            "`darkit predict` also finds a class when it runs in the folder of the code it was trained with."
        )
        raise
    if predicter.task in (CLASSIFICATION, REGRESSION):
        _label(predicter, found, given, arguments)
        return 0
    if arguments.out is not None:
        raise ConfigError(
            f"--out is for models that give labels or numbers for the rows of a file; {found.name!r} makes text."
        )
    if predicter.tokenizer is None:
        _print_raw(predicter, found, given)
    elif predicter.task == MASKED:
        _fill(predicter, given, arguments)
    else:
        _stream(predicter, given, arguments)
    return 0


def _stream(predicter: Predicter, given: str, arguments: argparse.Namespace) -> None:
    from darkit.prediction.tasks import PAIRS

    settings = {name: getattr(arguments, name) for name in _SAMPLING}
    if predicter.task != PAIRS:
        settings["ctx_len"] = arguments.ctx_len
    pieces = predicter.predict(given, **settings)
    if arguments.json:
        print(format_json({"prompt": given, "text": "".join(pieces)}, indent=None))
        return
    if predicter.task != PAIRS:
        print(given, end="", flush=True)
    for piece in pieces:
        print(text_for_output(piece), end="", flush=True)
    print()


def _fill(predicter: Predicter, given: str, arguments: argparse.Namespace) -> None:
    from darkit.prediction.text.masked import MASK, mask_name

    places = predicter.predict(given, top=arguments.top)
    if arguments.json:
        found = [[{"token": item.token, "probability": item.probability} for item in place] for place in places]
        print(format_json({"text": given, "masks": found}, indent=None))
        return
    written = given.replace(MASK, mask_name(predicter.tokenizer)).split(mask_name(predicter.tokenizer))
    for number, candidates in enumerate(places):
        if len(places) > 1:
            print(f"{MASK} {number + 1}")
        before = MASK.join(written[: number + 1])
        after = MASK.join(written[number + 1 :])
        for item in candidates:
            print(f"{item.probability:6.1%}  {before}{text_for_output(item.token.strip())}{after}")


def _label(predicter: Predicter, found: Run, given: str, arguments: argparse.Namespace) -> None:
    from darkit.cli.labelling import as_plain, is_file, label_file, label_json

    if is_file(arguments.input):
        label_file(predicter, found, Path(arguments.input), arguments.out, as_objects=arguments.json)
        return
    if arguments.out is not None:
        raise ConfigError(f"--out is for a file of rows, a .csv, .npy, .json or .jsonl, not for {given[:60]!r}.")
    if predicter.tokenizer is not None:
        prediction = predicter.predict(given)
        if arguments.json or not hasattr(prediction, "label"):
            print(format_json(as_plain(prediction), indent=None))
        else:
            print(f"{text_for_output(str(prediction.label))}  ({prediction.probability:.1%})")
    elif not label_json(predicter, found, given):
        _print_raw(predicter, found, given)


def _print_raw(predicter: Predicter, found: Run, given: str) -> None:
    print(format_json(_as_json(_predict(predicter, _tensors(given, found, predicter.model))), indent=None))


def _given(word: str) -> str:
    try:
        text = sys.stdin.read().rstrip("\n") if word == "-" else word
        text.encode()
    except UnicodeError as error:
        raise ConfigError(f"INPUT must be text in UTF-8 ({error}).") from error
    return text


def _tensors(text: str, run: Run, model: nn.Module) -> Any:
    """Makes tensors of JSON: of numbers, or of a dict of numbers for a model with named inputs."""
    import torch

    from darkit.cli.labelling import float_type

    dtype = float_type(run, model)
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            return {key: torch.tensor(item, dtype=dtype) for key, item in value.items()}
        return torch.tensor(value, dtype=dtype)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"The run {run.name!r} has no tokenizer: its model takes numbers as JSON, such as {_example(run)}, not "
            f"{text[:60]!r} ({error})."
        ) from error


def _predict(predicter: Predicter, inputs: Any) -> Any:
    from darkit.engine.steps.loss import batch_errors

    with batch_errors(inputs):
        return predicter.predict(inputs)


def _example(run: Run) -> str:
    example = example_input(run.path, run.info)
    return example if example != "INPUT" else '"[[1.0, 2.0]]"'


def _as_json(output: Any) -> Any:
    if hasattr(output, "tolist"):
        return output.tolist()
    if isinstance(output, dict):
        return {key: _as_json(value) for key, value in output.items()}
    if isinstance(output, tuple | list):
        return [_as_json(value) for value in output]
    return output
