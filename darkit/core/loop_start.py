"""The start of a run around somebody else's loop: what is checked, found and written before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from darkit.engine.checkpoints.weights import bare
from darkit.engine.config import TrainerConfig
from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_source, write_tokenizer
from darkit.engine.log.progress import announce
from darkit.engine.log.rows import Sink
from darkit.engine.log.tensorboard import TensorBoardSink
from darkit.engine.loop import retention_of
from darkit.engine.processes import loop_place
from darkit.engine.resume import Changes, Resume, find_resume
from darkit.engine.series import check_series
from darkit.engine.session import Session
from darkit.engine.together import meeting_of_loop
from darkit.errors import ConfigError, ModelError, RunExistsError, RunLockedError
from darkit.runs import Run, base, files
from darkit.runs.configs import public_values
from darkit.runs.log import last_values
from darkit.runs.names import run_path

_COLUMNS = ("step", "time")
_NOT_CONFIGS = (str, bytes, int, float, list, tuple, set, type, nn.Module)
_IN_A_ROW = (int, float, str, bool, type(None))


@dataclass(frozen=True)
class LoopStart:
    """An open session and what it starts from.

    Attributes:
        session: The open session.
        config: The recorded settings.
        max_step: The step at which the loop will end, or None.
        found: What the run resumes from, or None.
        content: The content of its checkpoint, or empty.
        size: The number of processes.
        described: Whether the model is recorded.
    """

    session: Session
    config: dict[str, Any]
    max_step: int | None
    found: Resume | None
    content: Mapping[str, Any]
    size: int
    described: bool

    @property
    def is_resumed(self) -> bool:
        """Whether the same run is resumed from a checkpoint."""
        return self.found is not None and self.found.same_run and self.found.checkpoint is not None


def open_loop(
    *,
    name: str | None,
    project: str | None,
    config: Any,
    settings: Mapping[str, Any],
    model: Any,
    tokenizer: Any,
    resume: bool | str | None,
    series: Mapping[str, Sequence[str]] | None,
    is_open: Callable[[Path], Any],
) -> LoopStart:
    """Check the arguments of `darkit.start_run`, and create the run or reopen it.

    Args:
        name: As in `darkit.start_run`, like the others without a description.
        project: As there.
        config: As there.
        settings: The arguments that are fields of `TrainerConfig` too, and are recorded.
        model: As there.
        tokenizer: As there.
        resume: As there.
        series: As there.
        is_open: Returns whether this process has a run directory open.

    Raises:
        DarkitError: As there.
    """
    given = {key: value for key, value in settings.items() if key != "max_step" or value is not None}
    checked = TrainerConfig(name=name, project=project, **given)
    max_step = None if settings["max_step"] is None else checked.max_step
    if model is not None and not isinstance(model, nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
    values = {} if config is None else _values(config)
    curves = check_series({} if series is None else series, "series")
    rank, size = loop_place()
    with meeting_of_loop() as meeting:
        if size > 1 and name is None and not isinstance(resume, str) and meeting is None:
            raise ConfigError("Several processes need a name= for their run, the same in each.")
        root = base()
        if name is not None and not rank and is_open(run_path(root, name)):
            raise (RunLockedError if resume else RunExistsError)(
                f"Run {name!r} is open in this process: call its finish() first, or choose another name."
            )
        found = find_resume(root, checked, resume)
        same = found if found is not None and found.same_run else None
        changes: Changes = {}
        if same is not None:
            _refuse_others(same)
            _refuse_complete(same, max_step)
            session = Session.reopen(same.run.path, same.step, rank=rank)
            if config is None:
                values = same.run.config
            changes = _changes(same.run.config, values)
        else:
            kind = "run" if model is None else type(bare(model)).__name__
            session = Session.create(root, checked, kind, rank)
    session.meeting = meeting
    session.project = project
    try:
        if session.writes:
            if same is not None:
                same.set_aside_later()
            if found is not None:
                announce(found.describe(changes))
        described = None
        if model is not None and session.writes:
            described = replace(describe_model(model), apart=True)
        session.describe(described, None, curves, {}, changes=changes)
        if session.writes:
            files.write_json(session.folder / files.MODEL_CONFIG, values)
            recorded = {"name": session.folder.name, "project": project, **settings, "max_step": max_step}
            files.write_json(session.folder / files.TRAINER_CONFIG, recorded)
            if tokenizer is not None:
                write_tokenizer(session.folder, tokenizer)
            if model is not None:
                write_source(session.folder, model)
        session.begin(
            max_step,
            None,
            lambda: _sinks(session, checked),
            retention_of(checked),
            first_columns=_COLUMNS,
            console=checked.console,
        )
        if same is not None:
            _log_missing_row(session, same)
    except BaseException as error:
        session.end(error)
        raise
    content = found.content if found is not None else {}
    return LoopStart(session, values, max_step, found, content, size, described=model is not None)


def record_model(session: Session, model: nn.Module) -> None:
    """Record how a model can be rebuilt in a run that began without it."""
    described = replace(describe_model(model), apart=True)
    info = Run(session.folder).info
    session.check()
    files.write_json(session.folder / files.RUN, info | {"model": described.as_dict()})
    write_source(session.folder, model)


def _values(config: Any) -> dict[str, Any]:
    if isinstance(config, _NOT_CONFIGS) or callable(config):
        raise ConfigError(f"config must be a dict, a dataclass or a namespace, not {type(config).__name__}.")
    return public_values(config)


def _refuse_others(same: Resume) -> None:
    if same.run.info and not same.run.has_own_loop:
        raise ConfigError(
            f"The run {same.run.name!r} was not made by start_run, and its config is another kind of config: resume it "
            "as it was started, or give another name to start a new run from its weights."
        )


def _refuse_complete(same: Resume, max_step: int | None) -> None:
    if max_step is not None and same.step >= max_step and not same.automatic:
        raise ConfigError(
            f"The run {same.run.name!r} is at step {same.step} already. To resume it, max_step must be larger than "
            f"that, not {max_step}."
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Return the settings that differ, also new and dropped ones."""
    names = [*before, *(name for name in now if name not in before)]
    return {name: (before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}


def _sinks(session: Session, config: TrainerConfig) -> list[Sink]:
    if not config.tensorboard:
        return []
    return [TensorBoardSink(session.folder / files.TENSORBOARD, session.step + 1 if session.step else None)]


def _log_missing_row(session: Session, same: Resume) -> None:
    """Log the row of the checkpoint's step, if the process died between the checkpoint and the row."""
    loop = same.content.get("loop")
    row = loop.get("row") if isinstance(loop, Mapping) else None
    if session.stream is None or not isinstance(row, dict) or row.get("step") != same.step:
        return
    if str(last_values(session.folder / files.LOG).get("step")) != str(same.step):
        session.stream.put({name: value for name, value in row.items() if isinstance(value, _IN_A_ROW)})
