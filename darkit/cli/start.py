"""``darkit start``: the dashboard."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.runs import home
from darkit.runs.archive import refuse_archive
from darkit.runs.home import expanded

_EXAMPLES = """\
  darkit start                            show the runs on http://127.0.0.1:8000/
  darkit start --daemon --open            in the background, and open a browser
  darkit start --host 0.0.0.0             for other machines, with a token in the printed address
  darkit stop-server                      end the one in the background
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "start", run, "watch all runs on a local page", _EXAMPLES)
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--host", default="127.0.0.1", help="another than this machine's own needs the printed token")
    parser.add_argument("--home", type=Path, help="the darkit home to show (default: DARWIN_KIT_HOME)")
    parser.add_argument("--daemon", action="store_true", help="serve from the background")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def run(arguments: argparse.Namespace) -> int:
    """Serve until it is stopped, or start a server in the background; print only the address."""
    refuse_archive("the scripts of its pages")
    from darkit.dashboard.server.serve import serve, start_in_background

    def announce(address: str) -> None:
        print(address, flush=True)
        if arguments.open:
            webbrowser.open(address)

    where = chosen_home(arguments)
    if arguments.daemon:
        announce(start_in_background(where, arguments.host, arguments.port))
        return 0
    return serve(where, arguments.host, arguments.port, announce)


def chosen_home(arguments: argparse.Namespace) -> Path:
    """The home that is meant."""
    return expanded(arguments.home).absolute() if arguments.home else home()


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {value}")
    return value
