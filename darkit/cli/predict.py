"""``darkit predict``: predict with a run's model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from darkit.cli.errors import show_warnings
from darkit.cli.loading import loading
from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.recorded import read_composed
from darkit.cli.terminal import text_for_output
from darkit.errors import ConfigError, ModelError
from darkit.prediction.rows import TEXT, Rows, as_csv, as_json, check_output, is_table, read_rows
from darkit.runs import Run, load
from darkit.runs.inert import format_json
from darkit.runs.safe import as_dict

if TYPE_CHECKING:
    from darkit.core import Predicter

_EXAMPLES = """\
  darkit predict NAME "The import statement"
  darkit predict NAME:iter-400-ckpt "The import statement" --temperature 0 --max-new-tokens 50
  darkit predict NAME "A list of names:" --top-p 0.9 --stop "." --seed 1
  echo "The import statement" | darkit predict NAME -
  darkit predict NAME "The [MASK] statement"     candidates of a masked model
  darkit predict NAME rows.csv --out labels.csv  for a classification or regression; also .npy, .json and .jsonl
  darkit predict NAME "[[1, 2, 3, 4]]"           numbers, as JSON, for a model without a tokenizer
"""
_SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "stop", "seed")


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "predict", run, "predict with a run's model", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name, or NAME:CHECKPOINT")
    parser.add_argument(
        "input", metavar="INPUT", help="a text, a file, or numbers as JSON; - reads a text or JSON from standard input"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or mps (default: the accelerator if available)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    text = parser.add_argument_group("text generation")
    text.add_argument(
        "--max-new-tokens", type=int, default=200, metavar="N", help="maximum number of new tokens (default: 200)"
    )
    text.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="sampling temperature; 0 always takes the likeliest token (default: 0.8)",
    )
    text.add_argument("--top-k", type=int, metavar="K", help="sample from the K likeliest tokens")
    text.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the likeliest tokens with total probability P"
    )
    text.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="stop before this text; may be repeated"
    )
    text.add_argument("--seed", type=int, metavar="N", help="seed, to get the same text again")
    text.add_argument("--ctx-len", type=int, metavar="N", help="maximum number of tokens that the model sees")
    other = parser.add_argument_group("other models")
    other.add_argument("--top", type=int, default=5, metavar="N", help="candidates for each [MASK] (default: 5)")
    other.add_argument("--out", type=Path, metavar="FILE", help="write predictions to a .csv, .npy, .json or .jsonl")


def run(arguments: argparse.Namespace) -> int:
    """Predict: stream text, print candidates and tables, and print anything else as JSON."""
    found = load(arguments.name)  # before the slow import of torch
    if arguments.out is not None:
        check_output(arguments.out)
    with loading():  # torch
        from darkit.core import Predicter
    from darkit.runs.tasks import CLASSIFICATION, MASKED, REGRESSION

    if "" not in sys.path:
        sys.path.insert(0, "")  # the model's class may be in the working directory
    show_warnings()
    given = _given(arguments.input)
    try:
        predicter = Predicter.from_pretrained(arguments.name, arguments.device)
    except ModelError as error:
        if as_dict(found.info.get("model")).get("config_kind") == "none":
            error.add_note("In Python: darkit.core.Predicter.from_pretrained(NAME, model=MODEL).")
        else:
            error.add_note(
                "`darkit predict` also finds a class if it runs in the folder of the code that trained the model."
            )
        raise
    if predicter.task in (CLASSIFICATION, REGRESSION):
        _print_predictions(predicter, found, given, arguments)
        return 0
    if arguments.out is not None:
        raise ConfigError(f"--out needs a model that predicts labels or numbers; {found.name!r} generates text.")
    if predicter.tokenizer is None:
        _print_json(predicter, found, given)
    elif predicter.task == MASKED:
        _print_candidates(predicter, given, arguments)
    else:
        _stream(predicter, given, arguments)
    return 0


def _stream(predicter: Predicter, given: str, arguments: argparse.Namespace) -> None:
    from darkit.runs.tasks import SEQ2SEQ

    settings = {name: getattr(arguments, name) for name in _SAMPLING}
    if predicter.task != SEQ2SEQ:
        settings["ctx_len"] = arguments.ctx_len
    pieces = predicter.predict(given, **settings)
    if arguments.json:
        print(format_json({"prompt": given, "text": "".join(pieces)}, indent=None))
        return
    if predicter.task != SEQ2SEQ:
        print(given, end="", flush=True)
    for piece in pieces:
        print(text_for_output(piece), end="", flush=True)
    print()


def _print_candidates(predicter: Predicter, given: str, arguments: argparse.Namespace) -> None:
    from darkit.prediction.text.masked import MASK, mask_name

    masks = predicter.predict(given, top=arguments.top)
    if arguments.json:
        found = [[{"token": item.token, "probability": item.probability} for item in mask] for mask in masks]
        print(format_json({"text": given, "masks": found}, indent=None))
        return
    parts = given.replace(MASK, mask_name(predicter.tokenizer)).split(mask_name(predicter.tokenizer))
    for number, candidates in enumerate(masks):
        if len(masks) > 1:
            print(f"{MASK} {number + 1}")
        before = MASK.join(parts[: number + 1])
        after = MASK.join(parts[number + 1 :])
        for item in candidates:
            print(f"{item.probability:6.1%}  {before}{text_for_output(item.token.strip())}{after}")


def _print_predictions(predicter: Predicter, found: Run, given: str, arguments: argparse.Namespace) -> None:
    from darkit.prediction.batch import as_plain, predict_rows, write_predictions

    if is_table(arguments.input):
        path = Path(arguments.input)
        rows = predict_rows(predicter, found, read_rows(path), text_field=_text_field(found))
        if arguments.out is not None:
            write_predictions(arguments.out, rows)
            print(f"Wrote {len(rows.values)} predictions to {arguments.out}.")
        elif path.suffix == ".csv" and not arguments.json:
            print(text_for_output(as_csv(rows)), end="")
        else:
            print(as_json(rows))
        return
    if arguments.out is not None:
        raise ConfigError(f"--out needs a table file (.csv, .npy, .json or .jsonl) as INPUT, not {given[:60]!r}.")
    if predicter.tokenizer is None:
        _print_json(predicter, found, given)
        return
    prediction = predicter.predict(given)
    if arguments.json or not hasattr(prediction, "label"):
        print(format_json(as_plain(prediction), indent=None))
    else:
        print(f"{text_for_output(str(prediction.label))}  ({prediction.probability:.1%})")


def _print_json(predicter: Predicter, found: Run, given: str) -> None:
    from darkit.prediction.batch import predict_json

    output = predict_json(predicter, found, given)
    print(as_json(output) if isinstance(output, Rows) else format_json(output, indent=None))


def _given(word: str) -> str:
    try:
        text = sys.stdin.read().rstrip("\n") if word == "-" else word
        text.encode()
    except UnicodeError as error:
        raise ConfigError(f"INPUT must be text in UTF-8 ({error}).") from error
    return text


def _text_field(found: Run) -> str:
    """Return the name of the text column in the run's data."""
    field = as_dict(read_composed(found).get("data")).get("field")
    return field if isinstance(field, str) and field else TEXT
