"""How Lightning prepares, restores and reads training loaders, which it does not promise.

Like `darkit.engine.lightning`, this file touches what Lightning does not promise; ``tests/engine/test_lightning.py``
checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning


def replace_training_loaders(trainer: lightning.Trainer, replace: Callable[[Any], Any]) -> Callable[[], None]:
    """Have each training loader replaced once Lightning has prepared it; return what undoes this.

    The strategy gets a chance to change loaders by ``process_dataloader``; which stage it is called for only the
    trainer knows.
    """
    strategy: Any = trainer.strategy
    original = strategy.process_dataloader

    def process(loader: Any) -> Any:
        made = original(loader)
        return replace(made) if trainer.training else made

    strategy.process_dataloader = process
    return lambda: strategy.__dict__.pop("process_dataloader", None)


def training_loaders(trainer: lightning.Trainer) -> list[Any]:
    """Return the training loaders that a trainer has from an earlier ``fit``."""
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else list(combined.flattened)


def keep_positions(trainer: lightning.Trainer) -> None:
    """Have Lightning leave the positions of training loaders as they are when it prepares those of a restored ``fit``.

    It would give the loaders of every process the states that a checkpoint has of the first one's, without generators.
    """
    trainer.fit_loop._combined_loader_states_to_load = []


def batches_ahead(trainer: lightning.Trainer) -> int:
    """Return the number of batches that Lightning has fetched before they are used, for data without a length."""
    return len(getattr(trainer.fit_loop._data_fetcher, "batches", ()))


def ends_within_epoch(trainer: lightning.Trainer, batch: int) -> bool:
    """Return whether, after a batch, a training loader may have no batches left although the epoch has not ended."""
    combined, most = trainer.fit_loop._combined_loader, trainer.fit_loop.max_batches
    return combined is not None and combined._mode == "max_size" and batch < most
