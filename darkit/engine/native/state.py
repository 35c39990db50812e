"""The state of a training by Lightning's own loop: recorded after every step, saved in a checkpoint, restored."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning
from torch import nn

from darkit.engine.checkpoints.boundary import Boundary
from darkit.engine.checkpoints.savable import is_readable
from darkit.engine.checkpoints.weights import bare, class_path
from darkit.engine.data.loader_state import LoaderState
from darkit.engine.data.stateful import StatefulLoader
from darkit.engine.device import generator_states, restore_generators
from darkit.engine.lightning import dump, progress_of
from darkit.engine.lightning_loaders import batches_ahead, ends_within_epoch, keep_positions
from darkit.engine.lightning_results import (
    describe_results,
    epoch_results,
    logged_metrics,
    restore_logged_metrics,
    restore_results,
)
from darkit.engine.metrics.exchange import gathered
from darkit.engine.metrics.gathering import copy_states, metrics_of, restore_metrics
from darkit.engine.native.data import WholeLoader, flat_loaders, has_state, with_used_state
from darkit.engine.steps.own_settings import KEY as GIVEN_SETTINGS
from darkit.errors import ReproductionWarning

logger = logging.getLogger(__name__)
MakeLoader = Callable[[Any], StatefulLoader | None]
KEY = "darkit"  # of darkit's part in a checkpoint of Lightning's
_HPARAMS = ("hyper_parameters", "datamodule_hyper_parameters")
_HPARAMS_TYPES = ("hparams_type", "datamodule_hparams_type")


@dataclass
class Moment:
    """Where a training is after a step: what the next batch changes, except for weights and optimizers.

    Attributes:
        step: Completed optimizer steps.
        progress: See `darkit.engine.lightning.progress_of`; None after an epoch.
        results: See `darkit.engine.lightning.epoch_results`.
        metrics: The states of the module's torchmetrics objects, by path.
        logged: See `darkit.engine.lightning.logged_metrics`.
    """

    step: int
    progress: dict[str, Any] | None
    results: list[Any]
    metrics: dict[str, Any]
    logged: dict[str, Any]


class Moments:
    """Record the `Moment` of a training, and restore it.

    Args:
        module: The user's module.
        facts: Further entries of darkit's part in a checkpoint: which run it is of.

    Attributes:
        train: The training loaders whose position is known: those of darkit, and others with a state.
        val: The state of the validation loaders.
        last: The moment of the last step, or None.
        rate: The learning rate of the last step, or None.
        given: What the training was given for optimizers and schedules, or None; see `darkit.engine.native.given`.
    """

    def __init__(self, module: nn.Module, facts: Mapping[str, Any]) -> None:
        self.module = module
        self._facts = facts
        self.train: list[Any] = []
        self.val: list[LoaderState | _Passes] = []
        self.last: Moment | None = None
        self.rate: Any = None
        self.given: dict[str, Any] | None = None
        self._boundary = Boundary()
        self._metrics = metrics_of(module)

    def release(self) -> None:
        """Let go of the memory of the weights, which the trainer's hooks would keep."""
        self._boundary = Boundary()

    def watch(self, trainer: lightning.Trainer, loader: Any, adopt: MakeLoader, content: Mapping[str, Any]) -> Any:
        """Return the loader to train on for one that Lightning has prepared, with its position restored.

        Args:
            trainer: The trainer.
            loader: The loader.
            adopt: Returns one with a position for a loader that has none, or None to leave that as it is.
            content: The checkpoint to resume from, or empty.
        """
        if KEY in content:
            keep_positions(trainer)
        made = loader if isinstance(loader, StatefulLoader) else adopt(loader)
        states = loader_states(content, trainer.global_rank) if KEY in content else []
        state, generators = states[len(self.train)] if len(self.train) < len(states) else (None, None)
        if made is not None:
            made.is_marked = True
            made.feed.share(trainer.global_rank, trainer.world_size, even=True)
            if made is not loader:
                made.begin_at(trainer.current_epoch)
            if state is not None:
                made.load_state_dict(state, generators)
            self.train.append(made)
            return made
        if has_state(loader):
            loader = with_used_state(loader, lambda: batches_ahead(trainer))
            if state is not None:
                loader.load_state_dict(state)
            self.train.append(loader)
        elif content:
            warnings.warn(
                f"The training loader {type(loader).__name__} cannot resume within an epoch, so the resumed training "
                "is not an exact continuation: the rest of the epoch has other batches. Use darkit.dataloader(dataset, "
                "...), or a loader with state_dict and load_state_dict.",
                ReproductionWarning,
                stacklevel=2,
            )
        return loader

    def record(self, trainer: lightning.Trainer, *, epoch_ended: bool, owes: bool = False) -> None:
        """Record the moment after a step.

        Args:
            trainer: The trainer.
            epoch_ended: Whether everything of the epoch is done too.
            owes: Whether an error prevented a validation and schedules that may be due.
        """
        ahead = 0
        for loader in self._of_darkit():
            if epoch_ended and loader.feed.batches:
                loader.next_pass()
            elif loader.feed.order is None:
                ahead = batches_ahead(trainer)
            loader.mark(ahead)
        self.last = Moment(
            trainer.global_step,
            None if epoch_ended else progress_of(trainer) | {"owes": owes},
            [] if epoch_ended else epoch_results(trainer),
            self._metric_states(),
            logged_metrics(trainer),
        )
        if trainer.world_size == 1:  # several processes save nothing after an exception
            schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
            self._boundary.record(self.module, None, trainer.optimizers, schedules)

    @property
    def has_foreign_loaders(self) -> bool:
        """Whether the position of a loader is known only now, and not what it was after the last step."""
        return len(self._of_darkit()) < len(self.train)

    def _of_darkit(self) -> list[StatefulLoader]:
        return [loader for loader in self.train if isinstance(loader, StatefulLoader)]

    def _metric_states(self) -> dict[str, Any]:
        return copy_states(self._metrics)

    def collect(self, trainer: lightning.Trainer, *, interrupted: bool = False) -> dict[str, Any]:
        """Return the content of a checkpoint of the last recorded moment. All processes must call it.

        Args:
            trainer: The trainer.
            interrupted: Whether an error interrupted the next batch, which has changed generators and buffers.

        Raises:
            ValueError: It has changed weights, large buffers or a schedule too.
        """
        moment = self.last
        if moment is None:
            raise AssertionError("nothing was recorded")
        if interrupted:
            self._boundary.check_weights()
        content = dump(trainer, moment.progress)
        if interrupted:
            self._boundary.settings.put_into(content["optimizer_states"])
            weights = content["state_dict"]
            weights.update({key: value for key, value in self._boundary.buffers().items() if key in weights})
        alone = trainer.world_size == 1
        mine = {
            "rng": self._boundary.generators() if alone else generator_states(),
            "loaders": [
                loader.position(interrupted=interrupted) if isinstance(loader, StatefulLoader) else loader.state_dict()
                for loader in self.train
            ],
            "validation": [state.state() for state in self.val],
            "results": describe_results(moment.results),
            "metrics": moment.metrics,
            "logged": moment.logged,
        }
        ranks = gathered(mine) if trainer.world_size > 1 else [mine]
        own = {**self._facts, "progress": moment.progress, "rate": self.rate, "ranks": ranks}
        if self.given is not None:
            own[GIVEN_SETTINGS] = self.given
        facts = {"model_class": class_path(type(bare(self.module))), "current_step": moment.step}
        return _readable(content) | facts | {"global_step": moment.step, "rng": mine["rng"], KEY: own}

    def restore(self, trainer: lightning.Trainer, content: Mapping[str, Any]) -> None:
        """Restore what Lightning does not, before the first epoch; generators last."""
        own = content[KEY]
        ranks, self.rate = own["ranks"], own["rate"]
        mine = ranks[trainer.global_rank] if trainer.global_rank < len(ranks) else ranks[0]
        restore_metrics(self.module, mine["metrics"])
        if own["progress"] is not None:
            if ends_within_epoch(trainer, own["progress"]["batch"]):
                for loader, place in zip(self.train, mine["loaders"], strict=False):
                    if isinstance(loader, StatefulLoader):
                        loader.load_state_dict(place, mine["rng"], within_pass=True)
            restore_results(trainer, mine["results"])
        restore_logged_metrics(trainer, mine["logged"])
        for state, saved in zip(self.val, mine["validation"], strict=False):
            state.restore(saved)
        restore_generators(mine["rng"])


class _Passes:
    """The state of a validation loader of darkit's: each validation is a pass, which may end early."""

    def __init__(self, loader: StatefulLoader) -> None:
        self._loader = loader

    def state(self) -> int:
        return self._loader.passes

    def restore(self, passes: Any) -> None:
        if isinstance(passes, int):
            self._loader.begin_at(passes)


def validation_states(loaders: Any) -> list[LoaderState | _Passes]:
    """Return what saves and restores the state of each validation loader."""
    found = [loader.loader if isinstance(loader, WholeLoader) else loader for loader in flat_loaders(loaders)]
    return [_Passes(loader) if isinstance(loader, StatefulLoader) else LoaderState(loader) for loader in found]


def loader_states(content: Mapping[str, Any], rank: int) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return the position of each training loader in a checkpoint, with the generators to restore within an epoch."""
    own = content[KEY]
    mine = own["ranks"][rank] if rank < len(own["ranks"]) else own["ranks"][0]
    generators = None if own["progress"] is None else mine["rng"]
    return [(position, generators) for position in mine["loaders"]]


def other_processes(content: Mapping[str, Any], processes: int) -> str:
    """Return what a resume on that number of processes would lose, as a clause; empty if nothing."""
    ranks = len(content[KEY]["ranks"])
    if ranks == processes:
        return ""
    was, now = ("one process" if number == 1 else f"{number} processes" for number in (ranks, processes))
    return (
        f"The checkpoint has the places in the data and the random generators of {was}, which Lightning's own loop "
        f"cannot divide over {now}"
    )


def versions(module: lightning.LightningModule) -> int:
    """Return a number that grows when weights are changed."""
    return sum(parameter._version for parameter in module.parameters())


def _readable(content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of Lightning's with only what ``torch.load(weights_only=True)`` reads.

    States of callbacks and hyperparameters that it does not read are left out with a warning; the rest is refused
    where it is written.
    """
    states = content.get("callbacks", {})
    unreadable = [key for key, state in states.items() if not is_readable(state)]
    content["callbacks"] = {key: state for key, state in states.items() if key not in unreadable}
    for key in unreadable:
        logger.warning(
            "The state of the callback %s is not saved: it has values other than tensors, numbers, text and "
            "containers.",
            key.partition("{")[0],
        )
    for key in _HPARAMS_TYPES:
        content.pop(key, None)
    for key in _HPARAMS:
        if key in content:
            content[key] = _plain_hparams(content[key])
    return content


def _plain_hparams(values: Any) -> dict[str, Any]:
    if type(values).__module__.partition(".")[0] == "omegaconf":
        from omegaconf import OmegaConf

        values = OmegaConf.to_container(values, resolve=True)
    return {key: value for key, value in dict(values).items() if is_readable(value)}
