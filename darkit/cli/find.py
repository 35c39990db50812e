"""``darkit find``: a learning rate or a batch size, by a short run with its chart."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from darkit.cli.final_report import darkit_command
from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.cli.profile import quietly, training_words
from darkit.cli.recorded import key_of
from darkit.errors import ConfigError
from darkit.runs import base
from darkit.runs.names import fresh_name, run_path
from darkit.runs.notes import Notes, write_notes

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from darkit.engine.batch_range import BatchSize

_EXAMPLES = """\
  darkit find lr model=mymodel                settings as for darkit train, or the name of a run
  darkit find lr NAME --low 1e-6 --high 1 --steps 200
  darkit find batch NAME trainer.precision=bf16-mixed
"""
_RATES = ("trainer.scheduler=constant", "trainer.warmup_step=0", "trainer.nan_policy=warn")


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "find", run, "find a learning rate or a batch size", _EXAMPLES)
    parser.add_argument("what", choices=["lr", "batch"], help="what to find")
    parser.add_argument("words", nargs="+", metavar="NAME|KEY=VALUE", help="a run's name, or settings")
    parser.add_argument("--low", type=float, default=1e-7, metavar="LR", help="lr: the first one (default: 1e-7)")
    parser.add_argument("--high", type=float, default=10.0, metavar="LR", help="lr: the last one (default: 10)")
    parser.add_argument("--steps", type=int, metavar="N", help="lr: steps (default: 100); batch: of each size (5)")
    parser.add_argument("--max", type=int, default=4096, metavar="N", help="batch: the largest one (default: 4096)")


def run(arguments: argparse.Namespace) -> int:
    """Find it, print the suggestion and note it with the run.

    Raises:
        ConfigError: An argument is wrong.
    """
    if not 0 < arguments.low < arguments.high < math.inf:
        raise ConfigError(f"--low must be above 0 and below --high, not {arguments.low} and {arguments.high}.")
    least = 10 if arguments.what == "lr" else 1
    if arguments.steps is not None and arguments.steps < least:
        raise ConfigError(f"--steps must be at least {least}, not {arguments.steps}.")
    if arguments.max < 1:
        raise ConfigError(f"--max must be at least 1, not {arguments.max}.")
    words = training_words(arguments.words)
    name = fresh_name(f"find-{arguments.what}")
    if arguments.what == "lr":
        code, setting = _find_rate(words, name, arguments.low, arguments.high, arguments.steps or 100)
    else:
        code, setting = _find_size(words, name, arguments.max, arguments.steps or 5)
    if setting:
        key = setting.partition("=")[0]
        others = [word for word in words if key_of(word) != key]
        say(f"next\n  {darkit_command()} train {shlex.join([*others, setting])}")
    return code


def _find_rate(words: list[str], name: str, low: float, high: float, steps: int) -> tuple[int, str]:
    """Return the exit code, and the setting to train with or nothing."""
    from darkit.cli.train import main
    from darkit.engine.lr_range import EXPONENT, SMOOTHED, LrRange, rates_to_try, suggest

    test = LrRange(low, high, steps)
    short = (f"trainer.max_step={steps}", "trainer.max_epoch=null", "trainer.log_step_interval=1")
    series = {name: [EXPONENT, name] for name in ("train_loss", SMOOTHED)}
    own = (*short, "trainer.save_step_interval=0", f"name={name}", *quietly(steps), *_RATES)
    code = main([*words, *own], callbacks=[test], series=series, report_next=False)
    if code or not test.rates:
        return code, ""
    found = suggest(test.rates, test.losses)
    if found is None:
        sentence = (
            "The loss fell nowhere clearly: no learning rate can be suggested. Try another --low, or more --steps."
        )
        _conclude(name, sentence)
        return 1, ""
    steepest, tenth = found
    ended = "" if len(test.rates) == steps else f" It diverged at {test.rates[-1]:.2g}."
    tried = " to ".join(f"{rate:.2g}" for rate in rates_to_try(steepest, tenth))
    _conclude(
        name,
        f"The loss falls fastest at lr {steepest:.2g}; a tenth of the lr of the lowest loss is {tenth:.2g}.{ended} Try "
        + (f"an lr of {tried} in {test.module}'s configure_optimizers." if test.module else f"trainer.lr={tried}."),
    )
    return 0, "" if test.module else f"trainer.lr={tenth:.2g}"


def _find_size(words: list[str], name: str, most: int, steps: int) -> tuple[int, str]:
    """Return the exit code, and the setting to train with or nothing."""
    from darkit.cli.arguments import prepare
    from darkit.cli.compose import run_composed
    from darkit.cli.errors import show_warnings

    if "" not in sys.path:
        sys.path.insert(0, "")  # a model of the working directory's, as for darkit train
    show_warnings()
    found: list[BatchSize] = []

    def task(settings: DictConfig) -> bool:
        found.extend(_measure(settings, name, most, steps))
        return True

    run_composed(task, prepare(words))
    fitting = [one for one in found if one.seconds is not None]
    if not fitting:
        _conclude(name, "Not even a batch of one sample fits in memory.")
        return 1, ""
    best = max(fitting, key=lambda one: one.speed)
    small = next(one for one in fitting if one.speed >= 0.9 * best.speed)
    ended = f" A batch of {found[-1].size} does not fit in memory." if found[-1].seconds is None else ""
    _conclude(
        name,
        f"A batch of {best.size} is the fastest: {best.speed:.4g} samples/s.{ended} "
        + (
            f"One of {small.size} reaches {small.speed / best.speed:.0%} of it: trainer.batch_size={small.size}."
            if small.size != best.size
            else f"trainer.batch_size={best.size}."
        ),
    )
    return 0, f"trainer.batch_size={small.size}"


def _measure(settings: DictConfig, name: str, most: int, steps: int) -> Sequence[BatchSize]:
    from omegaconf import OmegaConf

    from darkit.cli.instantiate import make_parts
    from darkit.core.active import start_run
    from darkit.engine.batch_range import measure_sizes
    from darkit.engine.config import TrainerConfig
    from darkit.engine.device import resolve_device

    trainer = cast(TrainerConfig, OmegaConf.to_object(settings.trainer))
    resolve_device(trainer)
    choice, model, loss = make_parts(settings, trainer.seed)
    config = cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
    series = {"samples_per_second": ["batch_size", "samples_per_second"], "memory": ["batch_size", "memory"]}
    found = []
    with start_run(name, project=settings.project or trainer.project, config=config, series=series) as record:
        for step, one in enumerate(measure_sizes(model, loss, choice.train, trainer, most, steps), 1):
            found.append(one)
            if one.seconds is None:
                say(f"batch of {one.size}: does not fit in memory")
                continue
            memory = {} if one.memory is None else {"memory": one.memory}
            values = {"batch_size": one.size, "samples_per_second": one.speed, "ms_step": 1000 * one.seconds, **memory}
            record.log(values, step=step)
            used = "" if one.memory is None else f", {one.memory / 2**20:.0f} MiB"
            say(f"batch of {one.size}: {one.speed:.4g} samples/s, {1000 * one.seconds:.3g} ms a step{used}")
    return found


def _conclude(name: str, sentence: str) -> None:
    """Print the result, and note it with the run."""
    say(sentence)
    say(f"The chart is in the run {name}.")
    folder = run_path(base(), name)
    if folder.exists():
        write_notes(folder, Notes(note=sentence))
