"""``darkit predict``: a run's model on one input."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from darkit.cli.errors import show_warnings
from darkit.cli.example import example_input, first_input
from darkit.cli.parsers import Subparsers, add_command
from darkit.errors import BatchError, ConfigError, DarkitError, ModelError
from darkit.runs import Run, load

if TYPE_CHECKING:
    import torch
    from torch import nn

    from darkit.core import Predicter

_EXAMPLES = """\
  darkit predict NAME "The import statement"
  darkit predict NAME:iter-400-ckpt "The import statement" --temperature 0 --max-new-tokens 50
  echo "The import statement" | darkit predict NAME -
  darkit predict NAME "[[1, 2, 3, 4]]"           numbers, as JSON, for a model without a tokenizer
"""
_MISFITS = (RuntimeError, TypeError, ValueError, IndexError, KeyError)


def add_parser(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "predict", run, "predict with a run's model", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name, or NAME:CHECKPOINT")
    parser.add_argument("input", metavar="INPUT", help="a prompt, or numbers as JSON; - reads standard input")
    parser.add_argument("--device", help="auto, cpu, cuda or mps (default: the accelerator if there is one)")
    parser.add_argument("--max-new-tokens", type=int, default=200, metavar="N", help="tokens at most (default: 200)")
    parser.add_argument(
        "--temperature", type=float, default=0.8, metavar="T", help="0 takes the likeliest token (default: 0.8)"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="choose from the K likeliest tokens")
    parser.add_argument("--seed", type=int, metavar="N", help="for the same text again")


def run(arguments: argparse.Namespace) -> int:
    """Predicts: text is streamed, anything else is printed as JSON."""
    found = load(arguments.name)  # before torch is paid for
    from darkit.core import Predicter

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
    if predicter.tokenizer is None:
        print(json.dumps(_as_json(_predict(predicter, _tensors(given, found, predicter.model))), default=str))
        return 0
    pieces = predicter.predict(
        given,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )
    print(given, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


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

    dtype = _float_type(run, model)
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


def _float_type(run: Run, model: nn.Module) -> torch.dtype | None:
    """Returns the type that numbers are read as for a model that takes floats; None takes what JSON says."""
    from torch.nn import Embedding

    first = first_input(run)
    whole = any(isinstance(part, Embedding) for part in model.modules()) if first is None else first[0] != "float"
    parameter = next(model.parameters(), None)
    return None if whole or parameter is None or not parameter.is_floating_point() else parameter.dtype


def _predict(predicter: Predicter, inputs: Any) -> Any:
    from darkit.engine.loss import describe

    try:
        return predicter.predict(inputs)
    except DarkitError:
        raise
    except _MISFITS as error:
        raise BatchError(f"The model failed on {describe(inputs)}: {type(error).__name__}: {error}") from error


def _example(run: Run) -> str:
    example = example_input(run)
    return example if example != "INPUT" else '"[[1.0, 2.0]]"'


def _as_json(output: Any) -> Any:
    if hasattr(output, "tolist"):
        return output.tolist()
    if isinstance(output, dict):
        return {key: _as_json(value) for key, value in output.items()}
    if isinstance(output, tuple | list):
        return [_as_json(value) for value in output]
    return output
