"""``darkit start``: the dashboard."""

from __future__ import annotations

import argparse

from darkit.cli.parsers import Subparsers, add_command
from darkit.errors import ConfigError
from darkit.runs import base


def add_parser(commands: Subparsers) -> None:
    """Adds the command."""
    add_command(commands, "start", run, "watch all runs on a local page", "  darkit start\n")


def run(arguments: argparse.Namespace) -> int:
    """Says what can be done instead. Raises `ConfigError`."""
    raise ConfigError(
        "The dashboard is not part of this version: `darkit runs` and `darkit show NAME` look at runs, and "
        f"`tensorboard --logdir {base()}` shows their curves."
    )
