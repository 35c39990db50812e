"""Optimizer steps of the same samples on any number of processes: ``global_batch_size``, and what a resume keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from darkit.engine.checkpoints.state import number_of_ranks
from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.data.order import BatchOrder
from darkit.engine.resume import Resume
from darkit.errors import ConfigError

_HOW = "or give resume_overrides=true to resume with other steps"


@dataclass(frozen=True)
class KeptSteps:
    """The steps of a resumed run, kept on another number of processes.

    Attributes:
        samples: Samples of a step.
        was: The number of processes that made the checkpoint.
        now: The number of processes.
        normalizes: Whether the model has batch normalization.
    """

    samples: int
    was: int
    now: int
    normalizes: bool

    def describe(self) -> str:
        """Return what changes numerically, in a sentence or two for a person; empty if nothing does."""
        if self.was == self.now:
            return ""
        new = "" if self.now <= self.was else " Further processes seed their generators with (seed, step, rank)."
        own = " Running statistics of batch normalization are those of the first process." if self.normalizes else ""
        return (
            f" It was trained by {_processes(self.was)} and continues on {self.now} with the same {self.samples} "
            "samples in every step: sums are added in another order, so the last bits of the weights differ, and so do "
            f"random numbers that the processes draw themselves, as for dropout.{new}{own}"
        )


def set_global_batch(config: TrainerConfig, feed: Feed, processes: int) -> None:
    """Have a feed, which knows its place among the processes, cut its samples into steps of ``global_batch_size``.

    Raises:
        ConfigError: The data or another setting does not allow it.
    """
    total, order = config.global_batch_size, feed.order
    if total is None:
        return
    if order is None:
        raise ConfigError(
            f"global_batch_size={total} needs data that darkit orders: give the dataset itself, map-style, or a plain "
            "DataLoader of it, or use batch_size and gradient_accumulation_steps."
        )
    if total < processes:
        raise ConfigError(
            f"global_batch_size must be at least the number of processes ({processes}), each of which needs a sample, "
            f"not {total}."
        )
    order.total = total
    given = config.gradient_accumulation_steps
    if given not in (1, order.parts()):
        raise ConfigError(
            f"global_batch_size={total} with batch_size={order.batch_size} on {_processes(processes)} needs "
            f"{order.parts()} batches per step, but gradient_accumulation_steps is {given}: leave it out."
        )


def keep_steps(
    same: Resume | None, config: TrainerConfig, feed: Feed, model: nn.Module, processes: int, *, allowed: bool
) -> KeptSteps | None:
    """Keep the samples of every step of a resumed run, on any number of processes.

    A run whose steps are the same for any number of processes keeps them without being told: ``global_batch_size`` is
    set to what its checkpoint recorded.

    Args:
        same: The run that is resumed, or None.
        config: The trainer's config.
        feed: The training data, which knows its place among the processes.
        model: The model.
        processes: The number of processes.
        allowed: Whether steps may differ from those before.

    Returns:
        The steps that are kept; None if settings decide them as in any other run.

    Raises:
        ConfigError: The run's steps cannot be kept on that number of processes, and must not differ.
    """
    if same is None or not same.content:
        return None
    was = number_of_ranks(same.content)
    position = same.content.get("position") or {}
    recorded, order = position.get("per_step"), feed.order
    is_global = same.run.trainer_config.get("global_batch_size") is not None
    if config.global_batch_size is None:
        if allowed or (was == processes and not is_global):
            return None
        if order is None or recorded is None:
            raise ConfigError(_why_not(same, was, processes, order))
        config.global_batch_size, config.gradient_accumulation_steps = recorded, 1
    elif recorded != config.global_batch_size:
        if allowed:
            return None
        before = "steps whose samples may be of two epochs" if recorded is None else f"steps of {recorded} samples"
        raise ConfigError(
            f"The run {same.run.name!r} was trained in {before}, but global_batch_size is {config.global_batch_size}: "
            f"leave it out, {_HOW}."
        )
    set_global_batch(config, feed, processes)
    normalizes = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    if order is not None and not allowed:
        _refuse_other_groups(position, order, normalizes)
        _refuse_lost_metrics(same.content, processes)
    return KeptSteps(config.global_batch_size, was, processes, normalizes)


def _why_not(same: Resume, was: int, now: int, order: BatchOrder | None) -> str:
    text = (
        f"The run {same.run.name!r} was trained by {_processes(was)} and cannot continue on {now} with the same steps, "
    )
    if order is None:
        return text + (
            f"because its data has its own order: resume it on {_processes(was)}, {_HOW}. Runs with a map-style "
            "dataset resume on any number of processes."
        )
    return text + (
        f"because a step may have samples of two epochs: resume it on {_processes(was)}, {_HOW}. Runs with "
        "global_batch_size resume on any number of processes."
    )


def _refuse_other_groups(position: Mapping[str, Any], order: BatchOrder, normalizes: bool) -> None:
    """Refuse other batches for batch normalization, and a position within a step. Raises `ConfigError`."""
    groups = order.parts() * order.world
    if normalizes and position.get("groups", groups) != groups:
        before, now = (-(-order.unit // number) for number in (position["groups"], groups))
        raise ConfigError(
            f"Batch normalization of the model was trained on {before} samples at once, which would be {now}: give a "
            f"batch_size with which a process computes {before} at once, or give global_batch_size={order.unit} and "
            "resume_overrides=true."
        )
    if order.is_within_unit(position["samples"]):
        raise ConfigError(
            f"The checkpoint is {position['samples']} samples into its epoch, which is within a step of {order.unit}: "
            "resume it with the settings that it was trained with, or give resume_overrides=true."
        )


def _refuse_lost_metrics(content: Mapping[str, Any], processes: int) -> None:
    """Refuse to lose what further processes counted in torchmetrics objects. Raises `ConfigError`."""
    for rank in (content.get("ranks") or [])[processes:]:
        for name, metric in (rank.get("metrics") or {}).items():
            if metric["updates"]:
                raise ConfigError(
                    f"The torchmetrics object {name!r} of the model has values from {len(content['ranks'])} processes, "
                    f"which {processes} cannot hold: resume on as many, or give resume_overrides=true to lose them."
                )


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"
