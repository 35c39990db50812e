"""``darkit reproduce``: whether the first steps of a run come out the same from the code that it recorded."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.errors import ConfigError, listing
from darkit.reproduction.code import restored_code
from darkit.reproduction.command import TRAIN, Command, read_command
from darkit.reproduction.repeating import imported_live, link_run, repeat, starting_point, training_number
from darkit.runs import Run, load
from darkit.runs.code import is_sealed
from darkit.runs.inert import format_json, inert
from darkit.runs.safe import as_dict
from darkit.runs.spikes import recorded_spikes

_EXAMPLES = """\
  darkit reproduce NAME                      the first 50 steps
  darkit reproduce NAME --steps 200
  darkit reproduce NAME --from iter-400      50 steps from a checkpoint

exit codes:
  0  every compared row and checkpoint is the same bit for bit
  1  one differs
  2  the run cannot be repeated, or nothing can be compared
"""
_CHILD = "darkit.cli.reproduce_child"
_MOST = 20  # differences of the environment that are shown


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "reproduce", run, "run the first steps of a run again and compare", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name")
    parser.add_argument("--steps", type=int, default=50, help="how many steps (default: 50)")
    parser.add_argument("--from", dest="start", metavar="CKPT", help="start from this checkpoint of the run")
    parser.add_argument("--trust", action="store_true", help="run code that another darkit home recorded")


def run(arguments: argparse.Namespace) -> int:
    """Repeat and compare; return 0 when nothing differs.

    Raises:
        ConfigError: The run cannot be repeated.
    """
    if arguments.steps < 1:
        raise ConfigError(f"--steps must be at least 1, not {arguments.steps}.")
    found = load(arguments.name)
    if found.origin:
        raise ConfigError(f"The run {found.name!r} was imported from {found.origin.get('kind')}: it has no code.")
    if not arguments.trust and not is_sealed(found):
        raise ConfigError(
            f"The code of run {found.name!r} was not recorded by this darkit home, or was changed since. Repeating the "
            "run would run it: read it in run.json, and give --trust if you trust it."
        )
    command = read_command(found)
    start, after = starting_point(found, arguments.start)
    last = _last_step(found, after, arguments.steps)
    folder = Path(tempfile.mkdtemp(prefix="darkit-reproduce-"))
    try:
        if command.kind == TRAIN:
            command = replace(command, words=_train_words(found, folder, trusted=arguments.trust))
        return _repeat(found, command, start, after, last, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _repeat(found: Run, command: Command, start: Any, after: int, last: int, folder: Path) -> int:
    from darkit.reproduction.comparing import changed_environment, changed_machine, changed_settings, compare

    for name, (recorded, here) in _most(changed_environment(found)):
        say(f"environment: {inert(name)} {inert(recorded)} -> {inert(here)}")
    with restored_code(found, folder / "code") as code:
        for fact in code.facts:
            say(fact)
        say(f"Repeating steps {after + 1} to {last} of {found.name!r} ...")
        if command.kind != TRAIN and (training_number(found) or 1) > 1:
            say("Trainings of its script before it are repeated whole.")
        repeated = repeat(found, command, code, start, last, folder, _CHILD)
        if live := imported_live(folder):
            say(f"imported from {code.original} itself, so as they are today: {inert(listing(live))}")
    for name, (recorded, here) in changed_machine(found, repeated, after).items():
        say(f"environment: {inert(name)} {inert(recorded)} -> {inert(here)}")
    for name, (recorded, here) in _most(changed_settings(found, repeated)):
        say(f"{inert(name)}: {format_json(recorded, indent=None)} -> {format_json(here, indent=None)}")
    result = compare(found, repeated, after, last)
    if not result.rows and not result.checkpoints:
        say("The run recorded neither a row nor a checkpoint of these steps: nothing was compared.")
        return 2
    if result.step is None:
        what = f"{result.rows} rows and {result.checkpoints} checkpoints"
        say(f"EQUAL: {what} of steps {after + 1} to {last} are the same bit for bit.")
        return 0
    say(f"DIFFERENT: step {result.step} is the first that differs, in {inert(result.place)}.")
    if result.entry:
        say(f"The first difference in a checkpoint is in {inert(result.entry)}.")
    say(f"The largest deviation is {result.deviation:g}, in {inert(result.where)}.")
    return 1


def _most(pairs: dict[str, tuple[Any, Any]]) -> list[tuple[str, tuple[Any, Any]]]:
    if len(pairs) > _MOST:
        say(f"{len(pairs)} differences, of which the first {_MOST}:")
    return list(pairs.items())[:_MOST]


def _last_step(found: Run, after: int, steps: int) -> int:
    """Return the last step to repeat: of the same settings and code, and at least to the first recorded one.

    Raises:
        ConfigError: The run recorded nothing to compare.
    """
    from darkit.reproduction.comparing import first_recorded

    first = first_recorded(found, after)
    if first is None:
        raise ConfigError(f"The run {found.name!r} recorded no step after {after}: there is nothing to compare.")
    last = min(max(after + steps, first), max(found.details.step, first))
    info = found.info
    commit, entries = as_dict(info.get("git")).get("commit"), info.get("continued")
    for entry in map(as_dict, entries if isinstance(entries, list) else []):
        other = entry.get("changes") or as_dict(entry.get("git")).get("commit") != commit
        step = entry.get("after_step")
        if other and type(step) is int and after < step < last:
            last = step
            say(f"After step {last} the run was resumed with other settings or code: steps up to there are repeated.")
            break
    for spike in recorded_spikes(info)[::-1]:
        if spike.resumed < last <= spike.noticed:  # the repetition comes to these steps before it is rewound, too
            last = spike.resumed if spike.resumed > after else min(spike.noticed + 1, found.details.step)
            say(f"After step {spike.noticed} a loss spike was noticed: steps up to {last} are repeated.")
    return last


def _train_words(found: Run, folder: Path, *, trusted: bool) -> tuple[str, ...]:
    """Return the overrides of a run of ``darkit train``, which are complete without the runs it inherited from."""
    from darkit.cli.quoting import unquoted
    from darkit.cli.recorded import believed_overrides, key_of, read_composed

    left_out = {"name", "trainer.name", "fork"}
    if trusted:
        recorded = read_composed(found).get("overrides") or []
        words = [str(word) for word in recorded if key_of(str(word)) not in left_out]
    else:
        words = believed_overrides(found, (), left_out)
    kept = []
    for word in words:
        if key_of(word) == "resume":
            other = unquoted(word.partition("=")[2]).partition(":")[0]
            if other.lower() in ("", "null", "true", "false", "auto") or other == found.name:
                continue
            link_run(other, folder)
        kept.append(word)
    return (*kept, f"name={found.name}")
