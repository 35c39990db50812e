"""What integrations of other libraries need of an `ActiveRun` besides its public methods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from darkit.core.active import ActiveRun, start_run
from darkit.core.loop_checkpoint import loop_checkpoint
from darkit.engine.checkpoints.checkpoint import write_checkpoint
from darkit.engine.series import check_series
from darkit.runs import Run, files, load
from darkit.runs.checkpoints import checkpoint_path, checkpoint_steps, manifest_path
from darkit.runs.configs import public_values
from darkit.runs.lock import RunLock
from darkit.runs.log import CsvLog, last_values


def update_config(run: ActiveRun, values: Mapping[str, Any]) -> None:
    """Add settings to the recorded ones. Raises `StorageError`."""
    run.config.update(public_values(values))
    if _is_open(run):
        files.write_json(run.path / files.MODEL_CONFIG, run.config)


def update_facts(run: ActiveRun, facts: Mapping[str, Any], series: Mapping[str, Sequence[str]] | None = None) -> None:
    """Add entries and curves to ``run.json``.

    Raises:
        ConfigError: A curve is not a pair of columns.
        StorageError: The file system failed.
    """
    if _is_open(run):
        info = Run(run.path).info
        curves = {name: list(columns) for name, columns in check_series(series or {}, "series").items()}
        known = info.get("series")
        curves = (known if isinstance(known, dict) else {}) | curves
        files.write_json(run.path / files.RUN, info | dict(facts) | {"series": curves})


def is_writer(run: ActiveRun) -> bool:
    """Return whether this process writes the run's files."""
    return run._session.writes


def complete_step(run: ActiveRun, step: int) -> None:
    """Say that a step is complete, for the status of a loop that logs only some of its steps."""
    run._session.step = max(run._session.step, step)
    run._session.signs += 1


def watch_signals(run: ActiveRun) -> None:
    """Turn signals into `ActiveRun.should_stop` until the run ends, for a loop that reads it after each step."""
    run._session.guard.install()


def end_process(run: ActiveRun) -> None:
    """End the process of an ended run that a signal stopped. Raises `SystemExit`."""
    run._session.guard.request.end_process()


def end_early(run: ActiveRun, reason: str) -> None:
    """End a run that is complete before its last planned step, for the given reason."""
    run._session.end_reason = reason
    run.finish()


def fail(run: ActiveRun, error: BaseException) -> None:
    """End a run as crashed by an error; a run that has ended stays as it is."""
    run.__exit__(type(error), error, error.__traceback__)


def make_up_for(folder: Path, step: int, model: nn.Module | None, history: Sequence[Mapping[str, Any]]) -> None:
    """Save a step whose checkpoint is missing, so that the run can be resumed after it.

    Another library's checkpoint of that step may be complete although the process died before this run's was, and
    before the last rows were written.

    Args:
        folder: The run directory.
        step: The step that the other library resumes from.
        model: The model with the weights of that step, or None for a checkpoint without weights.
        history: What was logged up to that step: ``step`` and values by column.

    Raises:
        RunLockedError: Another process trains the run.
        StorageError: The file system failed.
    """
    if step in checkpoint_steps(folder):
        return
    lock = RunLock(folder)
    try:
        log = CsvLog(folder / files.LOG)
        log.cut_after(step)
        log.append(_missing_rows(Run(folder), step, history))
        content = loop_checkpoint(step, model, None, {})
        write_checkpoint(folder, step, content, metrics={}, run_id=str(Run(folder).info.get("id", "")))
    finally:
        lock.release()


def reopen(name: str, **settings: Any) -> ActiveRun:
    """Reopen a run after its last row, with all rows and without anything to restore.

    Args:
        name: The run's name.
        **settings: As for `darkit.start_run`.

    Raises:
        DarkitError: As `darkit.start_run`.
    """
    run = load(name)
    step = int(last_values(run.path / files.LOG).get("step", 0))
    made = step not in checkpoint_steps(run.path)
    make_up_for(run.path, step, None, [])
    active = start_run(name, resume=f"{name}:iter-{step}-ckpt", **settings)
    if made and active._session.writes:  # it has no weights
        path = checkpoint_path(run.path, step)
        files.remove(manifest_path(path))
        files.remove(path)
    return active


def _missing_rows(run: Run, step: int, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the values of a history that the end of a log lacks, as rows."""
    known: dict[int, dict[str, Any]] = {}
    for row in run.log().to_dicts():
        known.setdefault(row["step"], {}).update({name: value for name, value in row.items() if value is not None})
    last = max(known, default=0)
    missing: dict[int, dict[str, Any]] = {}
    for entry in history:
        at = entry["step"]
        new = {name: value for name, value in entry.items() if name not in known.get(at, {})}
        if last <= at <= step and new:
            missing.setdefault(at, {"time": time.time()}).update(new | {"step": at})
    return [missing[at] for at in sorted(missing)]


def _is_open(run: ActiveRun) -> bool:
    """Return whether this process writes the run, and check that its folder is still the run's."""
    if not run._session.writes or run._closed:
        return False
    run._session.check()
    return True
