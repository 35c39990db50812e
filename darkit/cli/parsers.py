"""Parts shared by the parsers of all commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console

from darkit.cli.terminal import InertConsole

Subparsers = Any  # argparse has no public name for what add_subparsers returns
_PIPE_WIDTH = 10_000  # characters; lines in a pipe are not wrapped


class _Output(InertConsole):
    """Let `darkit.cli.main.main` handle a closed pipe; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output() -> Console:
    """Return standard output, for tables and styled text."""
    console = _Output(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def add_command(
    commands: Subparsers, name: str, run: Callable[[argparse.Namespace], int], help: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command whose help ends with examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
