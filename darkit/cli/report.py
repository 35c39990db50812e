"""``darkit report``: runs as one page in a file."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.runs.outputs import fresh_output

_EXAMPLES = """\
  darkit report NAME -o report.html                  one run: values, config and charts
  darkit report NAME OTHER -o report.html            several, compared
  darkit report NAME OTHER -o report.html --group trainer.lr --smooth 0.9 --log
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "report", run, "write runs as one page that opens without a server", _EXAMPLES)
    parser.add_argument("names", nargs="+", metavar="NAME", help="the runs' names")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PATH", help="the file, such as report.html"
    )
    parser.add_argument("--force", action="store_true", help="replace PATH if it is there")
    keys = "a config key, tags, or * for all but seeds: mean and deviation of groups; again for several keys"
    parser.add_argument("--group", action="append", default=[], metavar="KEY", help=keys)
    spread = "half width of the groups' bands: std, or ci for the 95 %% confidence interval of the mean; default: std"
    parser.add_argument("--spread", choices=("std", "ci"), default="std", help=spread)
    parser.add_argument("--smooth", type=_weight, default=0.0, metavar="W", help="weight of the average, 0 to 0.9999")
    parser.add_argument("--axis", choices=("step", "epoch", "relative", "wall"), default="step", help="default: step")
    parser.add_argument("--log", action="store_true", help="logarithmic y-axes")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="default: en")


def run(arguments: argparse.Namespace) -> int:
    """Write the page.

    Raises:
        RunNotFoundError: A run does not exist.
        RunExistsError: The file exists.
    """
    from darkit.dashboard.offline import report
    from darkit.dashboard.reading.zones import LOCAL
    from darkit.dashboard.view import read_view

    chosen = {name: getattr(arguments, name) for name in ("group", "spread", "smooth", "axis", "log", "language")}
    page = report(arguments.names, replace(read_view(chosen), zone=LOCAL))
    with fresh_output(arguments.output, {}, replace=arguments.force) as fresh:
        fresh.write_bytes(page)
    print(f"Wrote {arguments.output}, {len(page) / 1e6:.1f} MB.")
    return 0


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 0.9999:
        raise argparse.ArgumentTypeError(f"a weight is a number from 0 to 0.9999, not {text!r}")
    return weight
