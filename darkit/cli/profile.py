"""``darkit profile``: where the time of a training step goes."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.errors import ConfigError
from darkit.runs import base, load
from darkit.runs.inert import inert
from darkit.runs.names import fresh_name, run_path
from darkit.runs.notes import Notes, write_notes
from darkit.runs.work import work_facts

if TYPE_CHECKING:
    from darkit.engine.profiling import Profile

_EXAMPLES = """\
  darkit profile model=mymodel trainer.batch_size=64      settings as for darkit train
  darkit profile NAME                                     those of a run
  darkit profile NAME trainer.precision=bf16-mixed        with others
"""
_OWN = ("name", "resume", "fork", "trainer.name", "seeds")


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "profile", run, "measure where the time of a training step goes", _EXAMPLES)
    parser.add_argument("words", nargs="+", metavar="NAME|KEY=VALUE", help="a run's name, or settings")
    parser.add_argument("--steps", type=int, default=30, metavar="N", help="steps in each measurement (default: 30)")


def run(arguments: argparse.Namespace) -> int:
    """Train a small run, measure it and print the result; it is in the notes of that run too.

    Raises:
        ConfigError: An argument is wrong.
    """
    if arguments.steps < 5:
        raise ConfigError(f"--steps must be at least 5, not {arguments.steps}.")
    words = training_words(arguments.words)
    from darkit.cli.train import main
    from darkit.engine.profiling import StepProfile, verdict

    profile = StepProfile(arguments.steps)
    name = fresh_name("profile")
    short = (f"trainer.max_step={profile.last}", "trainer.max_epoch=null", f"name={name}")
    code = main([*words, *short, *quietly(profile.last)], callbacks=[profile], report_next=False)
    if code or not profile.result.measured:
        return code
    found = profile.result
    sentence = verdict(found)
    _print(found)
    print(sentence)
    write_notes(run_path(base(), name), Notes(note="\n".join([sentence, *(f"{k}: {v}" for k, v in _facts(found))])))
    return 0


def quietly(last: int) -> list[str]:
    """Return settings with no evaluation but a short one at the last step, and nothing that ends a training early."""
    return [
        *(f"trainer.eval_step_interval={last}", "trainer.eval_iters=1", "trainer.early_stop_patience=0"),
        *("trainer.load_best_at_end=false", "trainer.keep_best=0", "trainer.spike_policy=none"),
        "trainer.tensorboard=false",
    ]


def training_words(words: list[str]) -> list[str]:
    """Return the settings of a training: those given, after those of a run that the first word may name.

    Raises:
        ConfigError: A word is no setting, or one that the command sets itself; or the run's record has no settings of
            ``darkit train``.
        RunNotFoundError: There is no such run.
    """
    from darkit.cli.recorded import believed_overrides, key_of, read_composed

    first, given = (words[0], words[1:]) if "=" not in words[0] and not words[0].startswith("~") else ("", words)
    for word in given:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word!r} is not a setting: write it as key=value.")
        if key_of(word) in _OWN:
            raise ConfigError(f"The run of this command is short and gets its own name: leave out {key_of(word)}=.")
    if not first:
        return given
    found = load(first)
    if not read_composed(found):  # no overrides would mean the default model
        raise ConfigError(
            f"The run {found.name!r} was not trained by darkit train, so its record does not say how to make its model "
            "and data: give model= and data= in place of its name."
        )
    return [*believed_overrides(found, given, {*_OWN, *map(key_of, given)}, step=math.inf), *given]


def _facts(found: Profile) -> list[tuple[str, str]]:
    return [("step", f"{1000 * found.seconds:.3g} ms"), *work_facts(found.work, 1 / found.seconds)]


def _print(found: Profile) -> None:
    table = Table(box=None, pad_edge=False)
    for column, side in (("part of a step", "left"), ("share", "right"), ("measured", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for part, share in found.shares.items():
        seconds = found.parts.get(part)
        text = "" if seconds is None else f"{1000 * seconds:.3g} ms" + (" each" if part == "save" else "")
        table.add_row(part, f"{share:.1%}", text)
    console = output()
    console.print(table)
    for name, text in _facts(found):
        console.print(Text(f"{name}: {text}"))
    operators = ", ".join(f"{inert(name)} {1000 * seconds:.3g} ms" for name, seconds in found.operators[:5])
    console.print(Text(f"operators that take longest in a step: {operators}"))
