"""The parts of Lightning that darkit uses although they are private, experimental or undocumented.

No other file touches these parts. ``tests/engine/test_lightning.py`` checks each by name, and ``pyproject.toml`` bounds
Lightning to the versions that it passes with.
"""

from __future__ import annotations

from typing import Any, Protocol

import lightning
from lightning.fabric.plugins.environments import lightning as _environment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

REFUSALS = (ValueError, TypeError, RuntimeError, MisconfigurationException)
"""What `lightning.Trainer` raises for settings that it cannot combine."""


class Batches(Protocol):
    """What ``training_step(dataloader_iter)`` gets: each item is a batch, its index and its loader's index.

    Several steps per call need the batches themselves, and whether one was the last: after it Lightning must end the
    epoch.
    """

    done: bool

    def __next__(self) -> tuple[Any, int, int]: ...


def own_attributes(module: nn.Module) -> frozenset[str]:
    """Return the names of the attributes in which Lightning keeps its own state on a module, such as its trainer."""
    if not isinstance(module, lightning.LightningModule):
        return frozenset()
    return frozenset(("_hparams", "_hparams_initial", "_hparams_name", *vars(lightning.LightningModule())))


def step_progress(trainer: lightning.Trainer) -> Any:
    """Return the counter of optimizer steps behind ``trainer.global_step``.

    Whoever steps the optimizer without `LightningOptimizer.step` counts with ``increment_ready`` and
    ``increment_completed``.
    """
    return trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress


def batches_taken(trainer: lightning.Trainer) -> int:
    """Return the number of batches of this epoch so far, for a checkpoint outside of hooks that get an index."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def data_ended(trainer: lightning.Trainer) -> bool:
    """Return whether the data of this epoch has ended, which is not known beforehand without a length."""
    return bool(trainer.fit_loop._data_fetcher.done)  # type: ignore[union-attr]


def start_from(trainer: lightning.Trainer, step: int, epoch: int, batches: int) -> None:
    """Set the counters of a new trainer: ``fit(ckpt_path=...)`` reads only checkpoints that Lightning wrote.

    Args:
        trainer: The trainer, before ``fit``.
        step: Completed optimizer steps.
        epoch: Completed epochs.
        batches: Batches taken of the next epoch. If any, Lightning resumes it, and ends it even when none is left.
    """
    loop = trainer.fit_loop
    steps = step_progress(trainer).total
    steps.ready = steps.completed = step
    epochs: Any = loop.epoch_progress
    for counter in (epochs.current, epochs.total):
        counter.ready = counter.started = epoch + bool(batches)
        counter.processed = counter.completed = epoch
    if batches:
        taken: Any = loop.epoch_loop.batch_progress
        for counter in (taken.current, taken.total):
            counter.ready = counter.started = counter.processed = counter.completed = batches
        loop.restarting = True


def cause_of_exit(error: SystemExit) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that an exit of ``fit`` came from: Lightning exits the process while handling it."""
    return error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else None


def is_sigterm(error: SystemExit) -> bool:
    """Return whether Lightning raised an exit because of a SIGTERM that its own handler received."""
    return isinstance(error, SIGTERMException)


def copies_process(trainer: lightning.Trainer) -> bool:
    """Return whether a strategy starts copies of this process (spawn, fork); their class has no public name."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def free_port() -> int:
    """Return a free port as `LightningEnvironment` picks one."""
    return _environment.find_free_network_port()


def lightnings_rank() -> int:
    """Return the rank that Lightning's helpers for one process take this process for."""
    return int(getattr(rank_zero_only, "rank", 0))


def set_lightnings_rank(rank: int) -> None:
    """Set the rank that Lightning's helpers read from environment variables when they were imported."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
