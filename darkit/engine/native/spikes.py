"""The receipt of a spiking model that Lightning's own loop trains: of the first batch of every validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning
from torch import nn

from darkit.engine.callbacks.spiking import SpikingReceipt, receipt_of
from darkit.engine.config import TrainerConfig
from darkit.engine.spiking.neurons import find_neurons
from darkit.engine.steps.sharding import is_sharded


def measure_spikes(
    trainer: lightning.Trainer, module: nn.Module, config: TrainerConfig, tell: Callable[[Mapping[str, Any]], None]
) -> Callable[[], None]:
    """Measure the first batch of every validation while the trainer computes it; return what undoes this.

    As `SpikingReceipt` does in darkit's own loop, with the settings of one among the trainer's callbacks or of the
    config. Nothing is measured of models without spiking neurons or in parts, of the check before the first step, and
    where a module takes the iterator of its batches.

    Args:
        trainer: The trainer, in ``on_fit_start``.
        module: The user's module.
        config: Has ``raster_samples``, ``mac_energy`` and ``ac_energy``.
        tell: Gets the columns and the media.
    """
    if not trainer.is_global_zero or is_sharded(trainer) or not find_neurons(module):
        return lambda: None
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    receipt = next((one for one in callbacks if isinstance(one, SpikingReceipt)), None) or receipt_of(config)
    strategy: Any = trainer.strategy
    original = strategy.validation_step
    measured = -1  # the step of the last validation

    def validation_step(*arguments: Any, **settings: Any) -> Any:
        nonlocal measured
        if trainer.sanity_checking or trainer.global_step == measured or isinstance(arguments[0], Iterator):
            return original(*arguments, **settings)
        measured = trainer.global_step
        receipt.follow(module, None)
        output = receipt.observe(lambda: original(*arguments, **settings), arguments[0])
        tell(receipt.take())
        return output

    def undo() -> None:
        if vars(strategy).get("validation_step") is validation_step:
            del strategy.validation_step

    strategy.validation_step = validation_step
    return undo
