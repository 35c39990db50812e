"""Models in parts (``strategy="fsdp"``) under Lightning's own loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
from lightning.pytorch import callbacks as stock
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.optim import Optimizer

from darkit.engine.checkpoints.savable import check_savable
from darkit.engine.checkpoints.shards import split
from darkit.engine.checkpoints.writer import CheckpointWriter, ShardedWriter
from darkit.engine.config import TrainerConfig
from darkit.engine.session import Session
from darkit.engine.steps.optim import split_state
from darkit.engine.steps.parts import is_split, part_of
from darkit.engine.steps.sharding import SHARDED, Whole, is_sharded, refuse_optimizer, refuse_strategy, shard
from darkit.errors import ConfigError

_WHOLE = (stock.Checkpoint, stock.StochasticWeightAveraging, stock.WeightAveraging)  # callbacks


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints that have the form of one device's, in parts.

    Attributes:
        whole: The root with which steps are computed, if darkit has split the module; a module with a
            ``configure_model`` of its own has no such root.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1)
        self.whole: Whole | None = None

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_optimizers(self, trainer: lightning.Trainer) -> None:
        """Make the optimizers. Raises `ConfigError` for one that may need whole weights."""
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            refuse_optimizer(type(optimizer))

    def training_step(self, *arguments: Any, **settings: Any) -> Any:
        return self._within(super().training_step, *arguments, **settings)

    def validation_step(self, *arguments: Any, **settings: Any) -> Any:
        return self._within(super().validation_step, *arguments, **settings)

    def _within(self, step: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        return step(*arguments, **settings) if self.whole is None else self.whole(step, *arguments, **settings)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        module = self.lightning_module
        return {} if module is None else module.state_dict()

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        module: Any = self.lightning_module
        parts = {
            key: part_of(checkpoint["state_dict"][key], value)
            for key, value in module.state_dict().items()
            if is_split(value) and key in checkpoint["state_dict"]
        }
        module.load_state_dict({**checkpoint["state_dict"], **parts}, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(split_state(optimizer, state))


def strategy_for(
    model: nn.Module, config: TrainerConfig, callbacks: Sequence[lightning.Callback], processes: int
) -> str | Strategy:
    """Return the strategy of a training by Lightning's own loop.

    Args:
        model: The LightningModule.
        config: The settings.
        callbacks: The user's callbacks.
        processes: The number of processes.

    Raises:
        ConfigError: The strategy is not supported, or the module or a callback needs whole weights.
    """
    refuse_strategy(config, processes)
    if config.strategy != SHARDED:
        return config.strategy
    name = type(model).__name__
    if not isinstance(model, lightning.LightningModule):
        raise ConfigError("strategy='fsdp' is not possible with a model that torch.compile has wrapped.")
    if not model.automatic_optimization and not _has_own(model):
        raise ConfigError(
            f"{name} steps its optimizers itself, between forward and backward passes: strategy='fsdp' needs a "
            "configure_model that splits it with fully_shard. Or use strategy='ddp'."
        )
    for callback in callbacks:
        if isinstance(callback, _WHOLE):
            raise ConfigError(
                f"The callback {type(callback).__name__} needs whole weights, which strategy='fsdp' does not have: "
                "leave it out (darkit saves checkpoints itself), or use strategy='ddp'."
            )
    return ShardedStrategy(processes)


def make_writer(trainer: lightning.Trainer, session: Session, content: Mapping[str, Any]) -> CheckpointWriter | None:
    """Return what writes the checkpoints in this process, or None; all processes must call it.

    Args:
        trainer: The trainer.
        session: The open session.
        content: The content that a checkpoint would have now.

    Raises:
        CheckpointUnreadableError: That cannot be saved.
    """
    if is_sharded(trainer):
        check_savable(split(content).rest)
        return ShardedWriter(session.writer or CheckpointWriter(session.folder))
    if trainer.is_global_zero:
        check_savable(content)
    return session.writer


@contextmanager
def splitting(model: nn.Module, strategy: str | Strategy, precision: str) -> Iterator[None]:
    """Have Lightning split a module for a block, unless that has a ``configure_model`` of its own."""
    if not isinstance(strategy, ShardedStrategy) or _has_own(model):
        yield
        return

    def configure() -> None:
        if strategy.whole is None:
            strategy.whole = shard(model, strategy.device_mesh["data_parallel"], precision)

    model.configure_model = functools.partial(configure)  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.configure_model


def _has_own(model: nn.Module) -> bool:
    return isinstance(model, lightning.LightningModule) and is_overridden("configure_model", model)
