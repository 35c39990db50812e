"""``python -m darkit.train`` and ``darkit train``: a run from composed configs."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from darkit.cli.arguments import is_sweep, prepare, refuse_sweep_settings, sweeps_names, unchosen
from darkit.cli.compose import OWN_CONFIGS, describe_error, run_composed
from darkit.cli.errors import INTERRUPTED, UNEXPECTED, USAGE_ERROR, print_error, show_warnings
from darkit.cli.final_report import final_report, resume_hint
from darkit.cli.jobs import SweepJobs, describe_failures, exit_code
from darkit.cli.loading import loading
from darkit.cli.pipes import say, tolerate_closed_output
from darkit.cli.terminal import print_traceback
from darkit.engine.config import TrainerConfig
from darkit.errors import BatchError, ConfigError, DarkitError, ProcessFailedError, SweepError
from darkit.runs import Run, base, load
from darkit.runs.home import home
from darkit.runs.names import refuse_existing
from darkit.sweep.objective import value_of

Series = Mapping[str, Sequence[str]] | None


def describe_failure(error: BaseException) -> str:
    """Return an unexpected error in one sentence."""
    return f"{type(error).__name__}: {error}"


def main(
    arguments: Sequence[str] | None = None,
    callbacks: Sequence[Any] = (),
    series: Series = None,
    *,
    report_next: bool = True,
) -> int:
    """Train what the arguments compose.

    Args:
        arguments: Hydra's overrides and flags; by default those of the process.
        callbacks: Lightning callbacks to train with besides darkit's own.
        series: The curves to show, as in `darkit.fit`.
        report_next: Whether to print what can be done next with the run.

    Returns:
        The exit code: 0, or 2 when the user can fix the error.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a model of the working directory's, as with python -m
    show_warnings()
    task = _Task(SweepJobs(home()), is_sweep(given), callbacks, series, report_next)
    try:
        refuse_sweep_settings(given)
        prepared = prepare(given)
        task.number_names = task.sweeps and not sweeps_names(prepared)
        with task.jobs if task.sweeps else nullcontext(), tolerate_closed_output():  # of Hydra's help and configs
            try:
                run_composed(task, prepared)
            finally:
                failures = task.jobs.failures()
    except DarkitError as error:
        print_error(error)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    if not all(failure.told for failure in failures):
        print_error(SweepError(describe_failures(failures)))
    return exit_code(failures)


@dataclass
class _Task:
    """What Hydra calls for every job, in this process or, where a launcher starts others, in one of those.

    It raises nothing, so that a sweep continues with its next job.

    Attributes:
        jobs: Records what failed.
        sweeps: Whether a sweep was asked for.
        callbacks: Lightning callbacks to train with.
        series: The curves to show, or None.
        report_next: Whether to print what can be done next with the run.
        number_names: Whether the jobs share a name, and each gets its number behind it.
    """

    jobs: SweepJobs
    sweeps: bool
    callbacks: Sequence[Any]
    series: Series = None
    report_next: bool = True
    number_names: bool = False

    def __call__(self, settings: DictConfig) -> bool | float:
        """Train one job, and return its objective; False when it failed."""
        from hydra.core.hydra_config import HydraConfig

        found = HydraConfig.get()
        number = int(found.job.num) if self.sweeps else 0
        overrides = " ".join(found.overrides.task)
        with self.jobs.training(str(found.launcher._target_)) as allowed:
            if not allowed:
                return False
            try:
                run = _train(settings, self)
                if not self.sweeps:
                    return True
                return value_of(run, settings.sweep.objective, settings.sweep.direction)
            except DarkitError as error:
                print_error(error)
                self.jobs.fail(number, overrides, USAGE_ERROR, str(error))
            except OmegaConfBaseException as error:
                print_error(sentence := ConfigError(describe_error(error)))
                self.jobs.fail(number, overrides, USAGE_ERROR, str(sentence))
            except Exception as error:
                print_traceback()
                self.jobs.fail(number, overrides, UNEXPECTED, describe_failure(error))
            return False


def _warn_of_namesake(choice: str | None, model: Any) -> None:
    """Warn when ``model=NAME`` is darkit's own although the working directory has a ``NAME.py``."""
    own = Path(f"{choice}.py")
    if not own.is_file() or Path(OWN_CONFIGS, "model", f"{choice}.yaml").exists():
        return
    source = getattr(sys.modules.get(type(model).__module__), "__file__", None)
    if source is None or not own.samefile(source):
        warnings.warn(
            f"model={choice} is a model of darkit, not the one in ./{own}. To train that one, write "
            f"./{OWN_CONFIGS}/model/{choice}.yaml with _target_: {choice}.CLASS.",
            stacklevel=2,
        )


def _train(settings: DictConfig, task: _Task) -> Run:
    """Train one job, in several processes if the settings say so."""
    from hydra.core.hydra_config import HydraConfig

    with loading():  # torch and Lightning
        from darkit.engine.together import together

    trainer = cast(TrainerConfig, OmegaConf.to_object(settings.trainer))
    job = HydraConfig.get()
    if task.number_names and trainer.name is not None:
        trainer.name = f"{trainer.name}-{job.job.num}"
    first = True
    try:
        with together(trainer) as place:
            first = not place.rank
            return _train_here(settings, trainer, task, first=first)
    except ProcessFailedError:
        if first:
            raise
        raise SystemExit(UNEXPECTED) from None  # the first process says why


def _train_here(settings: DictConfig, trainer: TrainerConfig, task: _Task, *, first: bool) -> Run:
    """Train in this process, the first or another one of a training."""
    from hydra.core.hydra_config import HydraConfig

    with loading():
        from darkit.cli.instantiate import make_parts
        from darkit.engine.fork import find_start
        from darkit.engine.native_training import leave_to_module
        from darkit.engine.training import train_run

    job = HydraConfig.get()
    resume = settings.resume if settings.resume is None or isinstance(settings.resume, bool) else str(settings.resume)
    fork = settings.fork if settings.fork is None else str(settings.fork)
    found = find_start(base(), trainer, resume, fork)  # before the work of making data and model
    since = found.step if found is not None and found.restores else 0
    if trainer.name is not None and first and not (found is not None and found.has_folder):
        refuse_existing(base(), trainer.name)
    overrides = list(job.overrides.task)
    choice, model, loss = make_parts(settings, trainer.seed)
    resolved = cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
    for name in leave_to_module(model, trainer, unchosen(overrides, job.runtime.choices)):
        del resolved["trainer"][name]
    composed = OmegaConf.create({"overrides": overrides, **resolved})
    if first:
        _warn_of_namesake(job.runtime.choices.get("model"), model)
    started = time.monotonic()
    try:
        run = train_run(
            model,
            choice.train,
            choice.val,
            trainer,
            root=base(),
            loss=loss,
            tokenizer=choice.tokenizer,
            callbacks=task.callbacks,
            series=task.series,
            resume=found,
            resume_overrides=settings.resume_overrides,
            composed=OmegaConf.to_yaml(composed),
        )
    except BatchError as error:
        if not any(override.partition("=")[0] == "data" for override in overrides):
            error.add_note("The data was the default one; data=NAME takes another, such as ./configs/data/NAME.yaml.")
        raise
    except (KeyboardInterrupt, SystemExit):
        with suppress(DarkitError):  # it was stopped before there was a run
            if first:
                print(resume_hint(load(trainer.name or "")), file=sys.stderr)
        raise
    if not first or (found is not None and found.has_nothing_to_do(trainer.max_step)):
        return run  # and that was said
    seconds = time.monotonic() - started
    baselines = choice.baselines if settings.loss is None else {}  # they are in the unit of the data's own loss
    report = final_report(run, first_step=since, seconds=seconds, baselines=baselines, next_commands=task.report_next)
    say(report)
    return run


if __name__ == "__main__":
    sys.exit(main())
