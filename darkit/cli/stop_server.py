"""``darkit stop-server``: the end of a dashboard."""

from __future__ import annotations

import argparse
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.runs import home
from darkit.runs.home import expanded


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "stop-server", run, "end the dashboard of a home", "  darkit stop-server\n")
    parser.add_argument("--home", type=Path, help="the darkit home it shows (default: DARWIN_KIT_HOME)")


def run(arguments: argparse.Namespace) -> int:
    """End the server; the exit code is 1 if none is running."""
    from darkit.dashboard.server.serve import stop

    where = expanded(arguments.home).absolute() if arguments.home else home()
    address = stop(where)
    print(f"Stopped the dashboard at {address}" if address else f"No dashboard of {where} is running.")
    return 0 if address else 1
