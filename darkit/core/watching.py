"""A training watched by another process: each new checkpoint is evaluated once, into a run of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from darkit.core.active import start_run
from darkit.engine.log.values import number_of
from darkit.errors import CheckpointCorruptError, CheckpointNotFoundError, ConfigError, RunReplacedError
from darkit.runs import Run, base, load
from darkit.runs.checkpoints import Checkpoint, list_checkpoints
from darkit.runs.names import check_name, run_path
from darkit.runs.notes import project_of, read_notes
from darkit.runs.safe import as_dict
from darkit.runs.status import ALIVE, Watcher

_PAUSE = 1.0  # seconds between two looks
_EVALUATED = "evaluated"  # in a checkpoint: step -> digest, number of resumes by then, values
Evaluate = Callable[[Checkpoint], dict[str, Any]]


def watch(
    run: Run,
    evaluate: Evaluate,
    *,
    into: str,
    config: Mapping[str, Any],
    tell: Callable[[Checkpoint, dict[str, Any] | str], None],
    pause: float = _PAUSE,
) -> Run:
    """Evaluate each checkpoint of a run, also those to come, until the run has ended or a stop is requested.

    The results are the rows of another run, each at the step of its checkpoint, and are durable before the next
    checkpoint is evaluated. Started again, it continues after the last one.

    Args:
        run: The run.
        evaluate: Returns the values of a checkpoint.
        into: The name of the other run.
        config: What is evaluated and how; it is the other run's config.
        tell: Called with each checkpoint and its values, or why it has none.
        pause: Seconds between two looks at the run.

    Returns:
        The other run.

    Raises:
        ConfigError: A run of that name has something else, or the training replaced a checkpoint that was evaluated by
            one with other values.
        RunReplacedError: The run was deleted or replaced meanwhile.
    """
    described = {"evaluates": run.name, "id": run.info.get("id"), **config}
    folder = run_path(base(), check_name(into))
    if folder.exists() and load(into).config != described:
        raise ConfigError(
            f"The run {into!r} has something other than these evaluations: give another name with --into."
        )
    project = project_of(run.info, read_notes(run.path)) or None
    watcher = Watcher()
    with start_run(into, project=project, config=described, resume="auto", keep_last=1, console=False) as record:
        skipped: set[int] = set()
        done: dict[str, Any] = dict(record.state.get(_EVALUATED) or {})
        while not record.should_stop:
            ended = watcher.read(run.path).state not in ALIVE  # read first: a checkpoint may be its last act
            if Run(run.path).info.get("id") != described["id"]:
                raise RunReplacedError(
                    f"The run {run.name!r} is no longer the one that was watched: it was deleted, moved or replaced."
                )
            found = list_checkpoints(run.path)
            for one in found:
                if _is_repeated(one, done.get(str(one.step)), run):
                    _refuse_other_values(one, done, evaluate, run, into)
            new = [one for one in found if one.step > record.step and one.step not in skipped]
            pending = [one for one in new if one.verified]
            if not pending and ended:
                for one in new:
                    tell(one, one.problem or "It has no manifest.")
                break
            if not pending:
                time.sleep(pause)
                continue
            checkpoint = pending[0]
            resumes = len(_resumes(run))
            try:
                values = evaluate(checkpoint)
            except (CheckpointNotFoundError, CheckpointCorruptError) as error:
                skipped.add(checkpoint.step)
                tell(checkpoint, str(error))
                continue
            tell(checkpoint, values)
            record.log(values, step=checkpoint.step)
            done[str(checkpoint.step)] = [checkpoint.sha256, resumes, _numbers(values)]
            record.save(step=checkpoint.step, **{_EVALUATED: done})
    return Run(folder)


def _resumes(run: Run) -> list[int]:
    """Return the steps after which a run was resumed, or to which it returned."""
    entries = Run(run.path).info.get("continued")
    steps = [as_dict(entry).get("after_step") for entry in entries] if isinstance(entries, list) else []
    return [step if type(step) is int else 0 for step in steps]


def _is_repeated(checkpoint: Checkpoint, known: list[Any] | None, run: Run) -> bool:
    """Return whether a training that went back has made an evaluated checkpoint again."""
    if known is None or not checkpoint.verified or checkpoint.sha256 == known[0]:
        return False
    return any(step < checkpoint.step for step in _resumes(run)[known[1] :])


def _refuse_other_values(checkpoint: Checkpoint, done: dict[str, Any], evaluate: Evaluate, run: Run, into: str) -> None:
    """Evaluate a repeated checkpoint again, of which the file may differ. Raises `ConfigError` if it is another one."""
    resumes = len(_resumes(run))
    try:
        numbers = _numbers(evaluate(checkpoint))
    except (CheckpointNotFoundError, CheckpointCorruptError):
        return
    if repr(numbers) != repr(done[str(checkpoint.step)][2]):  # NaN is NaN
        raise ConfigError(
            f"The training of {run.name!r} went back and made another {checkpoint.name} than the evaluated one. The "
            f"old values stay in {into!r}: give another name with --into."
        )
    done[str(checkpoint.step)] = [checkpoint.sha256, resumes, numbers]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    found = {key: number_of(key, value) for key, value in values.items()}
    return {key: float(number) for key, number in sorted(found.items()) if number is not None}
