"""The processes of a sweep: one composes the config and tells what it says, the others train a run each."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from multiprocessing import connection, parent_process
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from darkit.cli.arguments import prepare
from darkit.cli.compose import describe_error, run_composed
from darkit.cli.errors import print_error, show_warnings
from darkit.cli.train import main as train
from darkit.errors import ConfigError, DarkitError
from darkit.sweep.objective import direction_of, objective_name
from darkit.sweep.pool import Request


def compose(answers: Any, words: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    """Compose the config of a sweep's first trial, and send what the sweep needs of it, or the error's sentence.

    Args:
        answers: The sending end of a pipe.
        words: The overrides.
        folder: The working directory.
        environment: The environment.
    """
    _enter(folder, environment)
    found: dict[str, Any] = {}

    def task(settings: DictConfig) -> bool:
        from hydra.core.hydra_config import HydraConfig

        try:
            trainer = asdict(cast(Any, OmegaConf.to_object(settings.trainer)))
            sweep = asdict(cast(Any, OmegaConf.to_object(settings.sweep)))
        except DarkitError as error:  # which Hydra would report in its own way
            found["error"] = str(error)
            return False
        except OmegaConfBaseException as error:
            found["error"] = describe_error(error)
            return False
        found.update(
            trainer=trainer,
            sweep=sweep,
            digest=_digest(settings),
            name=settings.name,
            model=str(HydraConfig.get().runtime.choices.get("model") or "run"),
            objective=objective_name(sweep["objective"], trainer),
            direction=direction_of(sweep["direction"], sweep["objective"], trainer),
        )
        return True

    try:
        run_composed(task, prepare(words))
        if not found:
            raise ConfigError("The config of the sweep could not be composed.")
        answers.send(found.get("error", found))
    except DarkitError as error:
        answers.send(str(error))
    finally:
        answers.close()


def _digest(settings: DictConfig) -> str:
    """Return a digest of a composed config, as it is before its interpolations, without what the sweep compares."""
    content = cast(dict[str, Any], OmegaConf.to_container(settings, resolve=False))
    content.pop("sweep", None)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def train_trial(request: Request) -> None:
    """Train one run of a sweep, and end the process with the exit code of its ``darkit train``."""
    output = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    _enter(request.folder, request.environment)
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    show_warnings()
    words = ["train", *request.words]
    sys.argv = ["darkit", *words]  # in run.json too: how this run can be trained without the sweep
    sys.orig_argv = [sys.executable, "-m", "darkit", *words]
    try:
        code = train(request.words, _callbacks(request))
    except DarkitError as error:
        print_error(error)
        code = 2
    sys.exit(code)


def _enter(folder: str, environment: Mapping[str, str]) -> None:
    """Take the place that the sweep was started in: the server may have been started elsewhere."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _callbacks(request: Request) -> list[Any]:
    from darkit.sweep.pause import PauseAt, PauseBelowMedian, RecordLineage

    callbacks: list[Any] = [RecordLineage(request.lineage)]
    if request.pause_at is not None:
        callbacks.append(PauseAt(request.pause_at, request.sweep))
    if request.median is not None:
        callbacks.append(PauseBelowMedian(sweep=request.sweep, **request.median))
    return callbacks


def _stop_without_parent() -> None:
    """Stop this process as SIGTERM would when the sweep has been killed: nobody would see it any more."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
