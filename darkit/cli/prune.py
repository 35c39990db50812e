"""``darkit prune``: deletes old checkpoints, or moves old runs to the trash."""

from __future__ import annotations

import argparse
from typing import Any

from rich.filesize import decimal

from darkit.cli.asking import add_yes, age, agreed
from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.errors import ConfigError, RunNotFoundError, StorageError, nearest
from darkit.runs import Run, list_runs
from darkit.runs.inert import format_json, inert
from darkit.runs.names import check_project
from darkit.runs.notes import project_of, read_notes
from darkit.runs.prune import Plan, Policy, carry_out, plan

_EXAMPLES = """\
  darkit prune --older-than 30d --dry-run           what would be deleted: all checkpoints but the last of each run
  darkit prune --older-than 30d --keep-best 1       keep the best one of each run too
  darkit prune --older-than 90d --runs              move whole runs to the trash
  darkit prune --older-than 30d --project P         only the runs of a project

An age is a number and s, min, h, d or w, counted from what a run last saved or logged. Running runs, and runs tagged
'keep', are never touched. Checkpoints are deleted for good, runs move to the trash. The checkpoints that stay are read
whole before: in place of a damaged one, an earlier one stays.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "prune", run, "delete old checkpoints, or move old runs to the trash", _EXAMPLES)
    parser.add_argument("--older-than", type=age, metavar="AGE", required=True, help="for how long nothing was saved")
    parser.add_argument("--keep-last", type=int, metavar="N", help="checkpoints of the last steps to keep (default: 1)")
    parser.add_argument("--keep-best", type=int, metavar="N", help="best checkpoints to keep too (default: 0)")
    parser.add_argument("--project", metavar="P", help="only the runs of this project")
    parser.add_argument("--runs", action="store_true", help="move whole runs to the trash instead")
    parser.add_argument("--dry-run", action="store_true", help="only show what would go")
    parser.add_argument("--json", action="store_true", help="print JSON; needs --yes or --dry-run")
    add_yes(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show what would go, ask, and do it. Raises `ConfigError` where the arguments do not go together."""
    policy = _policy(arguments)
    if arguments.json and not (arguments.yes or arguments.dry_run):
        raise ConfigError("--json asks no questions: add --yes, or --dry-run.")
    plans = [plan(found, policy) for found in _chosen(arguments.project)]
    going = [one for one in plans if not one.kept]
    if not arguments.json:
        for one in going:
            say(_sentence(one, policy))
    if going and not arguments.dry_run:
        if not agreed(f"{_total(going, policy)}. Go on?", arguments):
            say("Nothing was deleted.")
            return 1
        done = {one.folder: _carried_out(one, policy) for one in going}
        plans = [done.get(one.folder, one) for one in plans]
    went = [one for one in plans if not one.kept]
    changed = [one for one in plans if one.kept and one.folder in {before.folder for before in going}]
    if arguments.json:
        print(format_json(_as_json(plans, dry=arguments.dry_run)))
        return 1 if changed else 0
    for one in changed:
        say(f"{inert(one.folder.name)}: kept, {inert(one.kept)}")
    for one in [] if arguments.dry_run else went:
        if staying := set(one.damaged) - {gone.name for gone in one.checkpoints}:
            names = ", ".join(sorted(staying))
            say(f"{inert(one.folder.name)}: damaged and kept: {names}; good ones stay in their place")
    say(f"{'Would go' if arguments.dry_run else 'Done'}: {_total(went, policy)}.")
    return 1 if changed else 0


def _chosen(project: str | None) -> list[Run]:
    """Return all runs, or those of a project. Raises `RunNotFoundError` where no run belongs to it."""
    found = list_runs()
    if project is None:
        return found
    projects = [project_of(one.info, read_notes(one.path)) for one in found]
    chosen = [one for one, its in zip(found, projects, strict=True) if its == check_project(project)]
    if not chosen:
        raise RunNotFoundError(f"No run belongs to the project {project!r}. {nearest(project, {*projects} - {''})}.")
    return chosen


def _carried_out(planned: Plan, policy: Policy) -> Plan:
    """Return what was done for a run. One that cannot be written to hinders no other."""
    try:
        return carry_out(planned, policy)
    except StorageError as error:
        return Plan(planned.folder, kept=str(error))


def _policy(arguments: argparse.Namespace) -> Policy:
    last, best = arguments.keep_last, arguments.keep_best
    if arguments.runs and (last is not None or best is not None):
        raise ConfigError("--runs moves whole runs: leave out --keep-last and --keep-best.")
    if last is not None and last < 1:
        raise ConfigError(f"--keep-last must be at least 1, not {last}: without its last checkpoint no run resumes.")
    if best is not None and best < 0:
        raise ConfigError(f"--keep-best must be at least 0, not {best}.")
    return Policy(arguments.older_than, 1 if last is None else last, best or 0, arguments.runs)


def _sentence(one: Plan, policy: Policy) -> str:
    marked = [f"{gone.name} (damaged)" if gone.problem else gone.name for gone in one.checkpoints]
    what = "the whole run" if policy.whole_runs else ", ".join(marked)
    return f"{inert(one.folder.name)}: {what}, {decimal(one.bytes)}"


def _total(going: list[Plan], policy: Policy) -> str:
    runs = f"{len(going)} run{'' if len(going) == 1 else 's'}"
    size = decimal(sum(one.bytes for one in going))
    if policy.whole_runs:
        return f"{runs} to the trash, {size}"
    count = sum(len(one.checkpoints) for one in going)
    return f"{count} checkpoint{'' if count == 1 else 's'} of {runs}, {size}"


def _as_json(plans: list[Plan], *, dry: bool) -> dict[str, Any]:
    going, kept = [one for one in plans if not one.kept], [one for one in plans if one.kept]
    return {
        "dry_run": dry,
        "bytes": sum(one.bytes for one in going),
        "runs": [
            {
                "name": one.folder.name,
                "checkpoints": [checkpoint.name for checkpoint in one.checkpoints],
                "bytes": one.bytes,
                "damaged": list(one.damaged),
            }
            for one in going
        ],
        "kept": [{"name": one.folder.name, "reason": one.kept} for one in kept],
    }
