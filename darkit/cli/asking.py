"""What commands that remove something ask: an age, and whether to go on."""

from __future__ import annotations

import argparse
import re
import sys

from darkit.errors import ConfigError
from darkit.runs.inert import inert

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|min|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def age(text: str) -> float:
    """Return the seconds of an age such as ``30d``. Raises `argparse.ArgumentTypeError`."""
    match = _AGE.fullmatch(text)
    if match is None:
        form = "a number and s, min, h, d or w, such as 12h or 30d"
        raise argparse.ArgumentTypeError(f"an age is {form}, not {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add the option that answers the question beforehand."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def agreed(question: str, arguments: argparse.Namespace) -> bool:
    """Return whether the person agrees: by ``--yes``, or by an answer at the terminal.

    Raises:
        ConfigError: There is no terminal to ask at, and ``--yes`` is not given.
    """
    if arguments.yes:
        return True
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(f"{question} There is no terminal to answer at: add --yes.")
    print(inert(f"{question} [y/N] "), end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
