"""``darkit sweep``: many runs over a space of settings; and ``seeds=`` of ``darkit train``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from darkit.cli.errors import INTERRUPTED, UNEXPECTED, USAGE_ERROR, print_error, show_warnings
from darkit.cli.parsers import Subparsers
from darkit.errors import ConfigError, DarkitError, SweepError
from darkit.runs.inert import inert
from darkit.sweep.folder import JOURNAL, TRIALS, Definition, SweepFolder, list_sweeps, sweeps_root
from darkit.sweep.settings import SweepSettings
from darkit.sweep.space import Dimension

_SEEDS = "seeds"
_PRELOAD = ("darkit.cli.warm",)
_OWN = ("name", _SEEDS, "resume", "trainer.name")
_FLAGS = ("--config-dir=", "--config-name=", "--config-path=")
_HELP = """\
usage: darkit sweep KEY=VALUE ...      begin a sweep, or continue it with the same command
       darkit sweep NAME [--resume]    show a sweep, or continue it
       darkit sweep                    list the sweeps

Settings are those of darkit train. Those with several values make the search space:
  trainer.lr='interval(1e-4,1e-1,log)'   model.config.hidden_size=32,64   trainer.warmup_step='range(0,100,20)'

settings of the sweep:
  name=NAME               name of the sweep; the default is the model's
  seeds=N                 train each configuration with N seeds, and compare the means
  sweep.objective=COLUMN  what is compared; the default is trainer.monitor
  sweep.direction=min     or max; the default goes by the objective
  sweep.trials=20         number of trials
  sweep.sampler=tpe       tpe, random, grid, cmaes or qmc
  sweep.pruner=none       none, median, hyperband or halving
  sweep.factor=3          hyperband, halving: one trial in so many is promoted, to so many times the steps
  sweep.min_step=N        hyperband, halving: step of the first rung
  sweep.jobs=1            trials that train at once
  sweep.seed=0            of the sampler

examples:
  darkit sweep trainer.lr=1e-3,1e-2 model.config.hidden_size=32,64    all four, or as many as sweep.trials says
  darkit sweep trainer.lr='interval(1e-4,1e-1,log)' sweep.trials=50 sweep.pruner=hyperband sweep.jobs=4
  darkit sweep gpt --resume                                            continue the sweep called gpt
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the list; `main` reads its words, which Hydra's grammar has a part in."""
    commands.add_parser("sweep", help="train many runs over a space of settings", add_help=False)


def main(words: Sequence[str], *, only_seeds: bool = False) -> int:
    """Run ``darkit sweep``.

    Args:
        words: The words after the command.
        only_seeds: Whether ``seeds=`` of a ``darkit train`` is all that may vary.

    Returns:
        The exit code: 0; 1 when a trial failed; 2 when the user can fix the error; 128 + its number for a signal.
    """
    show_warnings()
    try:
        return _main(list(words), only_seeds)
    except DarkitError as error:
        print_error(error)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(words: list[str], only_seeds: bool) -> int:
    if {"-h", "--help"} & {*words}:
        print(_HELP, end="")
        return 0
    settings = [word for word in words if "=" in word or word.startswith("~")]
    others = [word for word in words if word not in settings]
    if settings:
        refused = [word for word in others if word] + [
            word for word in settings if word.startswith("-") and not word.startswith(_FLAGS)
        ]
        if refused:
            raise ConfigError(f"{refused[0]!r} is not a setting of a sweep: write it as key=value.")
        return run_sweep(settings, only_seeds=only_seeds)
    if not others:
        return _list()
    folder = SweepFolder(others[0])
    if others[1:] not in ([], ["--resume"]):
        raise ConfigError(f"{others[1]!r} is not a setting of a sweep: write it as key=value.")
    definition = folder.read()
    if not others[1:]:
        return _show(folder, definition)
    found = _facts([*definition.words, *_first(definition.space)])
    facts = {**definition.facts, "config": found["digest"]}
    return _run(folder, replace(definition, facts=facts), definition.settings)


def run_sweep(words: Sequence[str], *, only_seeds: bool = False) -> int:
    """Begin or continue the sweep that overrides describe. Raises `DarkitError`."""
    from darkit.cli.quoting import unquoted, with_text_quoted
    from darkit.cli.recorded import key_of
    from darkit.sweep.sampling import check_sampler
    from darkit.sweep.space import split_space

    given = {key_of(word): word.partition("=")[2] for word in words}
    for key in ("resume", "trainer.name"):
        if key in given:
            raise ConfigError(f"A sweep names and resumes its runs itself: leave out {key}=.")
    seeds = _seeds(given[_SEEDS]) if _SEEDS in given else 0
    left = [with_text_quoted(word, sweep=True) for word in words if key_of(word) not in _OWN]
    flags = [word for word in left if word.startswith("-")]
    own = [word for word in left if key_of(word).startswith("sweep.")]
    fixed, space = split_space([word for word in left if word not in flags and word not in own])
    if not space and not seeds:
        raise ConfigError(
            "There is nothing to sweep: give a setting several values, such as trainer.lr=1e-3,1e-2, or seeds=5."
        )
    if space and only_seeds:
        raise ConfigError(f"{space[0].key} has several values: write darkit sweep instead of darkit train.")
    facts = _facts([*flags, *fixed, *own, *_first(space)])
    settings = SweepSettings(**facts.pop("sweep"))
    settings.check()
    check_sampler(settings, space)
    trainer = facts.pop("trainer")
    _check_trainer(settings, trainer, [dimension.key for dimension in space], bool(seeds))
    first = trainer["seed"]
    definition = Definition(
        name=unquoted(given["name"]) if given.get("name") not in (None, "", "null") else facts["model"],
        words=(*flags, *fixed),
        space=tuple(space),
        settings=settings,
        seeds=tuple(range(first, first + seeds)),
        facts={
            "objective": facts["objective"],
            "direction": facts["direction"],
            "max_step": trainer["max_step"],
            "interval": _interval(facts["objective"], trainer),
            "config": facts["digest"],
        },
    )
    return _run(SweepFolder(definition.name), definition, settings)


def _run(folder: SweepFolder, definition: Definition, wanted: SweepSettings) -> int:
    """Run a sweep; one that was begun before keeps the number of jobs that its suggestions depend on."""
    from darkit.cli.sweep_report import report, tell_trials
    from darkit.cli.trial import train_trial
    from darkit.sweep.journal import Journal
    from darkit.sweep.pool import Pool, cuda_devices
    from darkit.sweep.progress import Progress, has_begun
    from darkit.sweep.rungs import make_plan
    from darkit.sweep.sampling import trials_of
    from darkit.sweep.scheduler import Scheduler

    trials = trials_of(wanted, definition.space)
    facts = definition.facts
    plan = make_plan(wanted, trials, facts["max_step"], facts["interval"])
    with folder.locked(), folder.removed_if_unused() as begun:
        if folder.exists:
            definition = _continued(folder, definition)
        else:
            folder.write(definition)
        journal = Journal(folder.path / JOURNAL, definition.name, definition.direction)
        journal.check(definition.space, definition.seeds)
        begun.append(lambda: has_begun(journal.trials()))
        progress = Progress(folder, definition, trials, tell_trials(trials))
        with Pool(train_trial, _PRELOAD, wanted.jobs, cuda_devices(os.environ)) as pool:
            Scheduler(folder, definition, plan, journal, pool, progress).run()
        report(definition, progress, journal.trials())
        if pool.stopped:
            print(f"The sweep {definition.name!r} was stopped; the same command continues it.", file=sys.stderr)
            return 128 + pool.stopped
    for number, reason in sorted(progress.failed.items()):
        print_error(ConfigError(f"Trial {number} failed. {reason}"))
    return UNEXPECTED if progress.failed else 0


def _continued(folder: SweepFolder, definition: Definition) -> Definition:
    """Return the recorded definition of a sweep, which must be the one given but for what may change."""
    before = folder.read()
    changed = before.differs_from(definition)
    if changed and {*changed.split(", ")} <= definition.facts.keys():
        raise ConfigError(
            f"The sweep {folder.name!r} was begun with another config ({changed}): a config file has changed, or the "
            "command was given in another directory. Continue it there with the files as they were, or give another "
            "name=."
        )
    if changed:
        raise ConfigError(
            f"The sweep {folder.name!r} exists already with other settings ({changed}). Give another name=, or "
            f"continue it with darkit sweep {shlex.quote(folder.name)} --resume."
        )
    kept = before.settings.trials != definition.settings.trials and before.settings.pruner in ("halving", "hyperband")
    if kept:
        raise ConfigError(
            f"The sweep {folder.name!r} has sweep.trials={before.settings.trials}, by which sweep.pruner="
            f"{before.settings.pruner} has made its brackets: it cannot be changed. Give another name=."
        )
    settings = replace(before.settings, trials=definition.settings.trials)
    continued = replace(before, settings=settings)
    if settings != before.settings:
        folder.write(continued)
    return continued


def _first(space: Sequence[Dimension]) -> list[str]:
    """Return the overrides with which a search space is checked."""
    return [f"{dimension.key}={dimension.first}" for dimension in space]


def _facts(words: Sequence[str]) -> dict[str, Any]:
    """Compose the config with the first value of each dimension, in a process that has all that this needs."""
    from darkit.cli.trial import compose, train_trial
    from darkit.sweep.pool import Pool

    try:
        found = Pool(train_trial, _PRELOAD, 1).call(compose, list(words), os.getcwd(), dict(os.environ))  # noqa: PTH109
    except EOFError as error:
        raise SweepError("The config of the sweep could not be composed; the error is above.") from error
    if isinstance(found, str):
        raise ConfigError(found)
    return dict(found)


def _seeds(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 9) or not 0 < int(value) <= 1000:
        raise ConfigError(f"seeds must be a whole number from 1 to 1000, the number of seeds, not {value!r}.")
    return int(value)


def _check_trainer(settings: SweepSettings, trainer: Mapping[str, Any], keys: Sequence[str], has_seeds: bool) -> None:
    """Check that the trainer's settings go with the sweep's. Raises `ConfigError`."""
    from darkit.sweep.objective import objective_name

    for name in ("device_num", "num_nodes"):
        if trainer[name] != 1:
            raise ConfigError(f"A sweep trains each run in one process: trainer.{name} must be 1, not {trainer[name]}.")
    if has_seeds and "trainer.seed" in keys:
        raise ConfigError("seeds= and a search over trainer.seed= are the same: give one of them.")
    if settings.pruner == "median" and has_seeds:
        raise ConfigError("sweep.pruner=median compares single runs: leave out seeds=, or take hyperband or halving.")
    objective = objective_name(settings.objective, trainer)
    if settings.pruner == "median" and objective.startswith("val_") and not trainer["eval_step_interval"]:
        raise ConfigError(
            f"sweep.pruner=median compares {objective} at evaluations, and trainer.eval_step_interval=0 makes none: "
            "give an interval, or sweep.objective=train_loss."
        )
    if settings.pruner in ("hyperband", "halving"):
        if trainer["max_epoch"] is not None:
            raise ConfigError(
                f"sweep.pruner={settings.pruner} compares trials at steps: give trainer.max_step instead of "
                "trainer.max_epoch."
            )
        for key in ("trainer.max_step", "trainer.eval_step_interval", "trainer.log_step_interval"):
            if key in keys:
                raise ConfigError(f"sweep.pruner={settings.pruner} compares trials at the same steps: fix {key}.")


def _interval(objective: str, trainer: Mapping[str, Any]) -> int:
    """Return the steps between values of the objective."""
    if objective.startswith("val_"):
        return int(trainer["eval_step_interval"]) or int(trainer["max_step"])
    return int(trainer["log_step_interval"])


def _show(folder: SweepFolder, definition: Definition) -> int:
    """Print what a sweep has found so far."""
    from darkit.cli.sweep_report import report
    from darkit.sweep.journal import Journal
    from darkit.sweep.progress import Progress
    from darkit.sweep.sampling import trials_of

    with ExitStack() as held:
        try:
            held.enter_context(folder.locked())
        except SweepError:
            print(f"{definition.name}: running; its trials so far are in {folder.path / TRIALS}")
            return 0
        journal = Journal(folder.path / JOURNAL, definition.name, definition.direction)
        journal.check(definition.space, definition.seeds)
    trials = journal.trials()
    progress = Progress(folder, definition, trials_of(definition.settings, definition.space))
    done = sum(trial.state.is_finished() for trial in trials)
    print(f"{definition.name}: {done} of {progress.trials} trials done")
    report(definition, progress, trials)
    return 0


def _list() -> int:
    names = list_sweeps()
    for name in names:
        print(inert(name))
    if not names:
        print(f"No sweeps yet in {sweeps_root()}. `darkit sweep trainer.lr=1e-3,1e-2` makes one.")
    return 0
