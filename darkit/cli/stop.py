"""``darkit stop``: lets a run save and end, wherever it trains."""

from __future__ import annotations

import argparse
import time

from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.errors import ConfigError
from darkit.runs import load
from darkit.runs.requests import request_stop
from darkit.runs.status import ALIVE

_EXAMPLES = """\
  darkit stop NAME            waits until the run has saved and ended
  darkit stop NAME --no-wait  leaves the request and returns
"""
_POLL = 0.1  # seconds


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "stop", run, "let a run save and end after the step that it is at", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the run to end")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait at most (default: 60)")


def run(arguments: argparse.Namespace) -> int:
    """Leave the request and wait. Raises `ConfigError` if the run is not running."""
    found = load(arguments.name)
    if found.status not in ALIVE:
        raise ConfigError(f"The run {found.name!r} is not running ({found.status}).")
    request_stop(found.path, "darkit stop")
    if arguments.no_wait:
        say(f"Asked {found.name} to stop.")
        return 0
    deadline = time.monotonic() + arguments.timeout
    while found.status in ALIVE:
        if time.monotonic() > deadline:
            say(f"{found.name} has not stopped after {arguments.timeout:g} s; the request stays.")
            return 1
        time.sleep(_POLL)
    details = found.details
    say(f"{found.name} is {details.state} at step {details.step}.")
    return 0
