"""``python -m darkit.train`` and ``darkit train``: a run from composed configs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from darkit.cli.compose import run_composed
from darkit.cli.errors import print_error, show_warnings
from darkit.cli.report import final_report
from darkit.engine.config import TrainerConfig
from darkit.errors import ConfigError, DarkitError
from darkit.runs import files, load
from darkit.runs.names import split_reference

_USAGE_ERROR = 2
_OF_ONE_RUN = ("name", "resume")  # what a resumed run does not take over from the command that began it


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what the arguments compose.

    Args:
        arguments: Hydra's overrides and flags; by default those of the process.

    Returns:
        The exit code: 0, or 2 when the user can mend what was wrong.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.insert(0, "")  # a model of the working directory's, as with python -m
    show_warnings()
    failed = False

    def task(settings: DictConfig) -> None:
        nonlocal failed
        try:
            _train(settings)
        except DarkitError as error:
            failed = True  # said at once, and a sweep goes on with its next job
            print_error(error)

    try:
        run_composed(task, [*_earlier_overrides(given), *given])
    except DarkitError as error:
        print_error(error)
        return _USAGE_ERROR
    return _USAGE_ERROR if failed else 0


def _train(settings: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from darkit.data import DataChoice
    from darkit.engine.loss import finds_own_loss
    from darkit.engine.training import train_run
    from darkit.runs import base

    trainer = _trainer_config(settings)
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN and trainer.name is not None and "name" not in job.overrides.task:
        trainer.name = f"{trainer.name}-{job.job.num}"
    model = _instantiate(settings.model, "model")
    data = _instantiate(settings.data, "data")
    loss = _instantiate(settings.loss, "loss") if settings.loss is not None else None
    choice = data if isinstance(data, DataChoice) else DataChoice(data)
    if loss is None and not finds_own_loss(model):
        loss = choice.loss
    values = cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
    composed = OmegaConf.create({"overrides": list(job.overrides.task), **values})
    started = time.monotonic()
    run = train_run(
        model,
        choice.train,
        choice.val,
        trainer,
        root=base(),
        loss=loss,
        tokenizer=choice.tokenizer,
        resume=settings.resume,
        composed=OmegaConf.to_yaml(composed),
    )
    steps = run.details.step
    print(final_report(run, seconds=time.monotonic() - started, steps=steps, baselines=choice.baselines))


def _trainer_config(settings: DictConfig) -> TrainerConfig:
    return cast(TrainerConfig, OmegaConf.to_object(settings.trainer))


def _instantiate(settings: Any, group: str) -> Any:
    """Builds what a config's ``_target_`` names; what its constructor refuses is the user's to mend."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if settings is None or "_target_" not in settings:
        raise ConfigError(f"The config of {group} needs a _target_, such as _target_: package.module.Class.")
    try:
        return instantiate(settings, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, DarkitError):
            raise error.__cause__ from error
        reason = " ".join(str(error.__cause__ or error).split()) or type(error.__cause__).__name__
        raise ConfigError(f"The {group} {settings._target_} cannot be made: {reason}") from error


def _earlier_overrides(given: Sequence[str]) -> list[str]:
    """Returns the overrides that the run to be resumed was begun with; those given now come after and win."""
    values = dict(argument.lstrip("+").partition("=")[::2] for argument in given if "=" in argument)
    wanted = values.get("resume", "null")
    if wanted.lower() in ("null", "false", ""):
        return []
    reference = values.get("name", "") if wanted.lower() == "true" else wanted.strip("'\"")
    name, _ = split_reference(reference)
    path = load(name).path / files.COMPOSED_CONFIG
    if not path.is_file():
        return []
    overrides = cast(DictConfig, OmegaConf.load(path)).get("overrides", [])
    return [str(item) for item in overrides if str(item).lstrip("+").partition("=")[0] not in _OF_ONE_RUN]


if __name__ == "__main__":
    sys.exit(main())
