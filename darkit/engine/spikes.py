"""``spike_policy="rewind"``: after a loss spike a training returns to the last good checkpoint and skips the batches.

The training ends with `Rewind`, and begins again as a resume from that checkpoint, whose position in the data is
replaced by the one at which the spike was noticed. Meanwhile the run stays running and locked. Everything is a function
of the losses, so a repetition of the run, and a run that was killed at any moment, come to the same steps.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from lightning import Callback

from darkit.engine.callbacks.loss_spike import LAG, LossSpike, LossSpikeGuard
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.log.progress import announce
from darkit.engine.resume import Resume
from darkit.engine.session import Session
from darkit.engine.stop import Rewind, StopTraining
from darkit.errors import CheckpointCorruptError, ConfigError
from darkit.runs import Run, files
from darkit.runs.checkpoints import Checkpoint, list_checkpoints
from darkit.runs.spikes import SPIKES

P = ParamSpec("P")
R = TypeVar("R")
OFF = "none"


def refuse_spike_policy(
    config: TrainerConfig, processes: int, callbacks: Sequence[Callback], *, own_session: bool
) -> None:
    """Refuse ``spike_policy`` where a training cannot be rewound, on the config's device. Raises `ConfigError`."""
    if config.spike_policy == OFF:
        return
    why = ""
    if processes > 1:
        why = f"trains in one process, not in {processes}"
    elif own_session:
        why = "needs darkit.fit or darkit train, not a darkit.core.Trainer"
    elif any(isinstance(callback, LossSpikeGuard) for callback in callbacks):
        why = "has a LossSpikeGuard of its own: leave out the one in callbacks"
    elif not config.save_step_interval:
        why = "needs checkpoints to return to: give save_step_interval"
    elif config.keep_last == 1 or (config.keep_last is None and config.keep_best):
        why = "needs an earlier checkpoint than the last one: give keep_last=2 or more"
    elif config.device != "cpu" and config.keep_last and (config.keep_last - 1) * config.save_step_interval < LAG:
        kept = -(-LAG // config.save_step_interval) + 1
        why = f"notices a spike {LAG} steps later on an accelerator, when no checkpoint before it is left: give "
        why += f"keep_last={kept} or more, or a larger save_step_interval"
    elif config.keep_optimizer == "last":
        why = "needs the optimizer in earlier checkpoints: leave out keep_optimizer='last'"
    if why:
        raise ConfigError(f"spike_policy={config.spike_policy!r} {why}.")


def spike_guard(session: Session, config: TrainerConfig, feed: Feed) -> list[LossSpikeGuard]:
    """Return the callback that rewinds a training, if its policy is to rewind."""
    if config.spike_policy == OFF:
        return []
    react = functools.partial(_rewind, session, config, feed)
    return [LossSpikeGuard(config.spike_threshold, config.spike_window, react)]


def rewinding(train: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function whose fourth argument is the config of a training, which is begun again after a rewind."""

    @functools.wraps(train)
    def trained(*args: P.args, **kwargs: P.kwargs) -> R:
        config: Any = args[3]
        before = copy.copy(config)  # a training changes its config
        paused: Session | None = None
        while True:
            try:
                return train(*args, **kwargs)
            except Rewind as rewind:
                found = rewind.found
                paused = found.paused
                if paused.guard.request.reason:
                    paused.end(rewind)
            except BaseException as error:
                if paused is None:
                    raise
                paused.end(error)  # unless the training has begun again
                if not (isinstance(error, StopTraining) and paused.guard.request.reason):
                    raise
            if paused is not None and paused.guard.request.reason:
                paused.guard.request.end_process()
                return found.run  # type: ignore[no-any-return]
            config = copy.copy(before)
            config.name = found.run.name
            args = (*args[:3], config, *args[4:])  # type: ignore[assignment]
            kwargs.update(resume=found, fork=None)

    return trained


def _rewind(session: Session, config: TrainerConfig, feed: Feed, spike: LossSpike, rewinds: int) -> bool:
    """Leave the training for its last good checkpoint.

    Returns:
        Whether the spike was dealt with otherwise; False if the training is about to stop, and rewinds when resumed.

    Raises:
        Rewind: With what to resume from.
    """
    request = session.guard.request
    if request.reason:
        return False
    said = f"Loss spike at step {spike.step}: {spike.loss:.4g}, {spike.z:.1f} robust standard deviations above "
    said += f"{spike.median:.4g}."
    if rewinds >= config.spike_limit:
        announce(f"{said} The training was rewound {rewinds} times and goes on (spike_limit={config.spike_limit}).")
        return True
    if session.writer is not None:
        session.writer.wait()
    found = _last_good(session, spike.step, config.save_step_interval)
    if found is None:
        announce(f"{said} There is no checkpoint before it, so the training goes on.")
        return True
    checkpoint, content = found
    place = {key: feed.position()[key] for key in ("epoch", "batches")}
    entry = {
        **vars(spike),
        "checkpoint": checkpoint.name,
        "checkpoint_step": checkpoint.step,
        "sha256": checkpoint.sha256,
        "skipped": {"from": {key: content["position"][key] for key in place}, "to": place},
    }
    _record(session, entry)
    announce(f"{said} Returning to {checkpoint.name}; the batches since then are skipped.")
    content["position"] = feed.position()
    content["callbacks"][LossSpikeGuard.__qualname__]["rewinds"] = rewinds + 1
    known = frozenset(one.step for one in list_checkpoints(session.folder))
    resume = Resume(Run(session.folder), checkpoint, content, same_run=True, known=known, paused=session)
    raise Rewind(f"Returning to {checkpoint.name} after a loss spike at step {spike.step}.", resume)


def _last_good(session: Session, step: int, every: int) -> tuple[Checkpoint, dict[str, Any]] | None:
    """Return the last resumable checkpoint before a step, at a multiple of ``every`` steps."""
    for checkpoint in list_checkpoints(session.folder)[::-1]:
        regular = checkpoint.step % every == 0  # others depend on where the training was stopped
        if checkpoint.step < step and regular and checkpoint.verified and checkpoint.has_optimizer:
            try:
                content = read_checkpoint(checkpoint)
            except CheckpointCorruptError:
                continue
            if LossSpikeGuard.__qualname__ in (content.get("callbacks") or {}) and "position" in content:
                return checkpoint, content
    return None


def _record(session: Session, entry: Mapping[str, Any]) -> None:
    """Add a spike to ``run.json``; one that a killed training repeats is there already."""
    session.check()
    info = Run(session.folder).info
    known = info.get(SPIKES) or []
    if entry not in known:
        files.write_json(session.folder / files.RUN, {**info, SPIKES: [*known, dict(entry)]})
