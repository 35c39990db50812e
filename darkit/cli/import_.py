"""``darkit import``: logs of other tools as runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from darkit.cli.errors import print_error
from darkit.cli.parsers import Subparsers, add_command, output
from darkit.cli.pipes import tolerate_closed_output
from darkit.errors import ConfigError, DarkitError
from darkit.integrations.importers.known import KnownRuns
from darkit.integrations.importers.recognise import KINDS, find_sources
from darkit.integrations.importers.writer import EMPTY, UNCHANGED, UPDATED, Outcome, import_source
from darkit.runs import base
from darkit.runs.inert import inert
from darkit.runs.names import check_name
from darkit.runs.notes import LONGEST_TAG, MOST_TAGS

_EXAMPLES = """\
  darkit import runs/                          every TensorBoard folder below runs/
  darkit import wandb/ mlruns/ --tag old       W&B offline runs and an MLflow store
  darkit import lightning_logs --dry-run       what would be imported
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "import", run, "make runs of the logs that other tools have written", _EXAMPLES)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=f"a folder or file: {KINDS}")
    parser.add_argument(
        "--tag", action="append", default=[], metavar="TAG", help="give the runs a tag; may be repeated"
    )
    parser.add_argument("--name", default="", help="the run's name; of several runs, what their names begin with")
    parser.add_argument("--dry-run", action="store_true", help="read everything, but write nothing")


def run(arguments: argparse.Namespace) -> int:
    """Import what is below the paths; the exit code is 1 if something could not be read.

    Raises:
        SourceError: A path does not exist, or nothing below it is recognised.
        ConfigError: A tag is too long.
    """
    _check_tags(arguments.tag)
    if arguments.name:
        check_name(arguments.name)
    found = [find_sources(path) for path in arguments.paths]
    sources = list(dict.fromkeys(source for one in found for source in one.sources))
    remarks = [remark for one in found for remark in one.remarks]
    known, counts, failed = KnownRuns(base()), dict.fromkeys(("imported", UPDATED, UNCHANGED, EMPTY), 0), 0
    with tolerate_closed_output():
        for source in sources:
            name = arguments.name if len(sources) == 1 else "-".join(filter(None, (arguments.name, source.name)))
            try:
                outcome = import_source(source, base(), known, name=name, tags=arguments.tag, dry_run=arguments.dry_run)
            except DarkitError as error:
                print_error(error)
                failed += 1
                continue
            counts[outcome.action] += 1
            _say(outcome, source.kind, arguments.dry_run)
            remarks += [f"{outcome.name}: {problem}" for problem in outcome.problems]
        for remark in remarks:
            _print(remark, "yellow")
        _print(_summary(counts, failed, arguments.dry_run), "dim")
    return 1 if failed or not sources else 0


def _check_tags(tags: list[str]) -> None:
    for tag in tags:
        if not 0 < len(tag.strip()) <= LONGEST_TAG:
            raise ConfigError(f"A tag has 1 to {LONGEST_TAG} characters, not {len(tag.strip())}: {tag[:20]!r}.")
    if len(tags) > MOST_TAGS:
        raise ConfigError(f"A run has at most {MOST_TAGS} tags, not {len(tags)}.")


def _say(outcome: Outcome, kind: str, dry_run: bool) -> None:
    if outcome.action == EMPTY:
        _print(f"skipped    {outcome.name} ({kind}): nothing in it that a run keeps", "dim")
    elif outcome.action == UNCHANGED:
        _print(f"unchanged  {outcome.name}", "dim")
    else:
        rows = f"+{outcome.new_rows:,} rows" if outcome.action == UPDATED else f"{outcome.rows:,} rows"
        media = f", {outcome.media:,} media" if outcome.media else ""
        word = f"{outcome.action:<9}" if not dry_run else f"would be {outcome.action}:"
        _print(f"{word}  {outcome.name} ({kind}, {rows}{media}, {outcome.state})", "")


def _summary(counts: dict[str, int], failed: int, dry_run: bool) -> str:
    parts = [f"{count} {action}" for action, count in counts.items() if count]
    if failed:
        parts.append(f"{failed} not readable")
    done = "Nothing was written: " if dry_run else ""
    return f"{done}{', '.join(parts) or 'nothing to import'}. Runs are in {base()}."


def _print(text: str, style: str) -> None:
    output().print(inert(text), style=style, markup=False, soft_wrap=True)
