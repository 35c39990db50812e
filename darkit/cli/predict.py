"""``darkit predict``: a run's model on one input."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from darkit.cli.errors import show_warnings
from darkit.cli.parsers import Subparsers, add_command
from darkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_EXAMPLES = """\
  darkit predict NAME "The import statement"
  darkit predict NAME:iter-400-ckpt "The import statement" --temperature 0 --max-new-tokens 50
  echo "The import statement" | darkit predict NAME -
  darkit predict NAME "[[1, 2, 3, 4]]"           numbers, as JSON, for a model without a tokenizer
"""


def add_parser(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "predict", run, "predict with a run's model", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name, or NAME:CHECKPOINT")
    parser.add_argument("input", metavar="INPUT", help="a prompt, or numbers as JSON; - reads standard input")
    parser.add_argument("--device", help="auto, cpu, cuda or mps (default: the accelerator if there is one)")
    parser.add_argument("--max-new-tokens", type=int, default=200, help="tokens at most (default: 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: 0.8)")
    parser.add_argument("--top-k", type=int, help="choose from the K likeliest tokens")
    parser.add_argument("--seed", type=int, help="for the same text again")


def run(arguments: argparse.Namespace) -> int:
    """Predicts: text is streamed, anything else is printed as JSON."""
    from darkit.core import Predicter

    sys.path.insert(0, "")  # a model of the working directory's
    show_warnings()
    given = sys.stdin.read() if arguments.input == "-" else arguments.input
    predicter = Predicter.from_pretrained(arguments.name, arguments.device)
    if predicter.tokenizer is None:
        print(json.dumps(_as_json(predicter.predict(_numbers(given)))))
        return 0
    print(given, end="", flush=True)
    pieces = predicter.predict(
        given,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


def _numbers(text: str) -> Tensor:
    import torch

    try:
        return torch.tensor(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"This model takes numbers as JSON, such as [[1.0, 2.0]], not {text[:60]!r} ({error})."
        ) from error


def _as_json(output: Any) -> Any:
    if hasattr(output, "tolist"):
        return output.tolist()
    if isinstance(output, dict):
        return {key: _as_json(value) for key, value in output.items()}
    if isinstance(output, tuple | list):
        return [_as_json(value) for value in output]
    return output
