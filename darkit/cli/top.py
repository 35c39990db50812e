"""``darkit top``: the runs and a chart in the terminal."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.start import chosen_homes
from darkit.errors import ConfigError

_EXAMPLES = """\
  darkit top                      runs and a chart, live; q ends it
  ssh -t gpu-box darkit top       those of another machine
  darkit top --home /mnt/lab/darkit --home ssh://gpu-box/home/me/darkit
                                  runs of several homes
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "top", run, "watch the runs and a chart in the terminal", _EXAMPLES)
    parser.add_argument(
        "--home", action="append", metavar="[LABEL=]HOME", help="as for `darkit start`; all of them are only read"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the runs until a person ends it.

    Raises:
        ConfigError: Textual is missing, this is no terminal, or a home is wrong.
    """
    if importlib.util.find_spec("textual") is None:
        raise ConfigError("darkit top needs Textual: pip install 'darkit[top]'.")
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise ConfigError("darkit top needs a terminal; over ssh, ask for one with -t. `darkit runs` prints a list.")
    from darkit.dashboard.reading.cache import LogCache
    from darkit.dashboard.reading.library import Library
    from darkit.dashboard.terminal.app import Top
    from darkit.remote.homes import Homes
    from darkit.runs.roots import Root

    where, others = chosen_homes(arguments.home or [])
    homes = Homes(others) if others else None
    roots = [Root(where / "base"), *(homes.roots if homes else ())]
    place = str(where) + (f" and {len(others)} more" if others else "")
    if homes is not None:
        homes.start()
    try:
        Top(Library(roots, LogCache()), place).run()
    finally:
        if homes is not None:
            homes.close()
    return 0
