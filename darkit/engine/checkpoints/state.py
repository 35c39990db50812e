"""The training state in a checkpoint: collecting and restoring it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer

from darkit.engine.checkpoints.boundary import Boundary
from darkit.engine.checkpoints.savable import check_savable, is_readable
from darkit.engine.checkpoints.shards import split
from darkit.engine.checkpoints.weights import bare, class_path
from darkit.engine.device import generator_states, seeded_states
from darkit.engine.lightning import batches_taken
from darkit.engine.metrics.exchange import gathered
from darkit.engine.metrics.gathering import collect_metrics
from darkit.engine.spiking.states import States
from darkit.engine.steps.adapter import Adapter, bare_module
from darkit.engine.steps.averages import averages_of
from darkit.engine.steps.own_settings import KEY as GIVEN_SETTINGS
from darkit.engine.steps.sharding import is_sharded

logger = logging.getLogger(__name__)


def collect_state(trainer: Trainer, pl_module: LightningModule, boundary: Boundary | None = None) -> dict[str, Any]:
    """Collect the state that a resume needs. All processes must call it.

    Args:
        trainer: The trainer.
        pl_module: The adapter, or another LightningModule.
        boundary: The state at the end of the last step, if an error interrupted the next batch.

    Returns:
        ``state_dict`` of the bare module, ``model_class``, ``current_step``, ``optimizer_state_dict``,
        ``scheduler_state_dict``, ``schedule_progress`` (see `darkit.engine.steps.schedule`), ``given_settings``
        (see `darkit.engine.steps.own_settings`), ``precision`` (the gradient scaler), ``callbacks`` (state by key),
        ``rng`` (all generators) and ``position`` (epoch, batches and the state of the data).
        With averaged weights, ``state_dict`` has the averages and ``raw_state_dict`` the weights to resume from.
        ``metrics`` has the states of torchmetrics objects, if the module has any, and ``neuron_states`` the hidden
        state of spiking neurons that is kept from batch to batch.
        With several processes, ``ranks`` has their ``rng``, ``position``, ``metrics`` and ``neuron_states``, in order,
        in the first process, which writes; and ``weight`` what the weights of the next step are relative to.

    Raises:
        ValueError: Weights, large buffers or the schedule have changed since the end of the step.
    """
    if boundary is not None:
        boundary.check_weights()  # first: averaged weights are in the module while their state is taken
    module = bare(bare_module(pl_module))
    optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]
    averages = averages_of(trainer)
    weights = [module.state_dict(), *([averages.state_of(module)] if averages is not None else [])]
    if boundary is not None:
        boundary.settings.put_into(optimizers)
        for part in weights:
            part.update({key: value for key, value in boundary.buffers().items() if key in part})
    mine = {
        "rng": generator_states() if boundary is None else boundary.generators(),
        "position": _position(trainer, pl_module, interrupted=boundary is not None),
    }
    if metrics := collect_metrics(module) if boundary is None else boundary.metrics:
        mine["metrics"] = metrics
    if neurons := neuron_states(pl_module) if boundary is None else boundary.neuron_states:
        mine["neuron_states"] = neurons
    state = {
        "state_dict": weights[-1],
        **({"raw_state_dict": weights[0]} if averages is not None else {}),
        "model_class": class_path(type(module)),
        "current_step": trainer.global_step,
        "optimizer_state_dict": optimizers[0] if len(optimizers) == 1 else optimizers,
        "scheduler_state_dict": _schedule(trainer, pl_module),
        "schedule_progress": _progress(pl_module),
        "precision": trainer.precision_plugin.state_dict(),
        "callbacks": _callback_states(trainer),
        **mine,
    }
    if isinstance(pl_module, Adapter) and pl_module.own.given is not None:
        state[GIVEN_SETTINGS] = pl_module.own.given
    agreement = getattr(pl_module, "agreement", None)
    if agreement is not None and agreement.weight is not None:
        state["weight"] = agreement.weight
    if trainer.world_size > 1:
        state["ranks"] = gathered(mine)
    return state


def neuron_states(pl_module: LightningModule) -> States:
    """Return the hidden state of neurons that a resumed training needs."""
    found = pl_module.compute.states if isinstance(pl_module, Adapter) else None
    return {} if found is None else found.collect()


def check_state(trainer: Trainer, pl_module: LightningModule) -> None:
    """Check that the current state of model, optimizers and schedule can be saved.

    Raises:
        CheckpointUnreadableError: A value cannot be saved; the message has its path.
    """
    state = {
        "state_dict": bare(bare_module(pl_module)).state_dict(),
        "optimizer_state_dict": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "scheduler_state_dict": _schedule(trainer, pl_module),
    }
    check_savable(split(state).rest if is_sharded(trainer) else state)


def of_rank(state: Mapping[str, Any], rank: int, seed: int = 0) -> Mapping[str, Any]:
    """Return the ``rng``, ``position`` and ``metrics`` of a process.

    A process that the checkpoint has not gets the position of the first one, generators that are seeded with
    (seed, step, rank), and no metrics, whose values all processes together have.
    """
    ranks = state.get("ranks") or [state]
    if rank < len(ranks):
        found: Mapping[str, Any] = ranks[rank]
        return found
    place = {"position": ranks[0]["position"]} if "position" in ranks[0] else {}
    return {"rng": seeded_states(seed, state["current_step"], rank)} | place


def number_of_ranks(state: Mapping[str, Any]) -> int:
    """Return the number of processes that made a checkpoint."""
    return len(state.get("ranks") or [state])


def restore_callbacks(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Restore the states of callbacks from a checkpoint."""
    states = state.get("callbacks") or {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if callback.state_key in states:
            callback.load_state_dict(states[callback.state_key])


def _position(trainer: Trainer, pl_module: LightningModule, interrupted: bool) -> dict[str, Any]:
    if isinstance(pl_module, Adapter):
        return pl_module.feed.position(interrupted=interrupted)
    return {"epoch": trainer.current_epoch, "batches": batches_taken(trainer)}


def schedules(trainer: Trainer, pl_module: LightningModule) -> list[Any]:
    """Return the torch schedules of a training."""
    if isinstance(pl_module, Adapter):
        return [] if pl_module.schedule is None else [pl_module.schedule.scheduler]
    return [config.scheduler for config in trainer.lr_scheduler_configs]


def _schedule(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any] | None:
    found = schedules(trainer, pl_module)
    return found[0].state_dict() if found else None


def _progress(pl_module: LightningModule) -> dict[str, Any] | None:
    schedule = pl_module.schedule if isinstance(pl_module, Adapter) else None
    return schedule.progress() if schedule is not None else None


def _callback_states(trainer: Trainer) -> dict[str, Any]:
    """Return the states of callbacks; one that ``torch.load(weights_only=True)`` refuses is skipped with a warning."""
    states = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        state = callback.state_dict()
        if not state:
            continue
        if is_readable(state):
            states[callback.state_key] = state
        else:
            logger.warning(
                "The state of the callback %s is not saved: it has values other than tensors, numbers, text and "
                "containers.",
                type(callback).__name__,
            )
    return states
