"""``darkit start``: the dashboard."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.remote.address import absolute, is_other, refuse_empty
from darkit.runs import home
from darkit.runs.archive import refuse_archive
from darkit.runs.home import expanded

_EXAMPLES = """\
  darkit start                            show the runs on http://127.0.0.1:8000/
  darkit start --daemon --open            in the background, and open a browser
  darkit start --host 0.0.0.0             for other machines, with a token in the printed address
  darkit start --home /mnt/lab/darkit --home ssh://gpu-box/home/me/darkit --home s3://bucket/darkit
                                          runs of several homes in one table; all but the first are only read
  darkit start --allow-host hub.example.org
                                          behind a proxy, such as JupyterHub's at .../proxy/8000/
  darkit stop-server                      end the one in the background
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "start", run, "watch all runs on a local page", _EXAMPLES)
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--host", default="127.0.0.1", help="another than this machine's own needs the printed token")
    parser.add_argument(
        "--home",
        action="append",
        metavar="[LABEL=]HOME",
        help="the darkit home to show (default: DARWIN_KIT_HOME); each further one, and one at ssh://, s3:// or "
        "file://, is shown too and only read",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name by which a proxy reaches the page; may be repeated",
    )
    parser.add_argument(
        "--base-path", default="", metavar="PATH", help="the path below which a proxy asks for the page, if it keeps it"
    )
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

    where, others = chosen_homes(arguments.home or [])
    if arguments.daemon:
        announce(
            start_in_background(
                where, arguments.host, arguments.port, others, arguments.allow_host, arguments.base_path
            )
        )
        return 0
    return serve(where, arguments.host, arguments.port, announce, others, arguments.allow_host, arguments.base_path)


def chosen_homes(given: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the reader's own home, and those that are shown too.

    The first one that is given is the reader's own, unless it is elsewhere or has a label. A relative folder among the
    others becomes absolute, since a server in the background may run in another folder.

    Raises:
        ConfigError: One of them is empty.
    """
    for text in given:
        refuse_empty(text)
    own = bool(given) and not is_other(given[0])
    return (expanded(given[0]).absolute() if own else home()), [absolute(text) for text in given[own:]]


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)
