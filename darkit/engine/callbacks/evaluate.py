"""Evaluation every so many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import lightning
import torch
from torch import Tensor

from darkit.engine.callbacks.base import StepCallback, check_interval, is_due
from darkit.engine.device import generator_states, move_to_device, restore_generators
from darkit.engine.loss import scalars
from darkit.errors import DataError, LossError


class StepEvaluate(StepCallback):
    """Evaluates on the validation data and adds ``val_loss`` (and ``val_<name>``) to the step's outputs.

    The training goes on as if there had been none: all random generators are put back to where they were.

    Args:
        batches: The validation data: a loader, iterated anew for every evaluation.
        every: Steps between evaluations; 0 evaluates at the last step only.
        iters: Batches per evaluation; 0 takes all.
        compute: Turns a batch into ``{"loss": ..., ...}``; by default the module's ``validation_step(batch, index)``,
            which must then return its loss.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        every: int,
        iters: int = 0,
        compute: Callable[[Any], dict[str, Any]] | None = None,
    ) -> None:
        self.batches = batches
        self.every = check_interval("every", every, 0)
        self.iters = check_interval("iters", iters, 0)
        self.compute = compute

    def on_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: dict[str, Any], step: int
    ) -> None:
        """Evaluates when it is due."""
        if is_due(trainer, step, self.every):
            states = generator_states()  # even a loader that does not shuffle draws a seed for its workers
            try:
                outputs.update(self.evaluate(trainer, pl_module))
            finally:
                restore_generators(states)

    def evaluate(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """Evaluates now.

        Returns:
            The means over all samples (a batch counts as often as it has samples), ``val_`` before their names.
        """

        def compute(batch: Any, index: int) -> dict[str, Any]:
            with trainer.precision_plugin.val_step_context():
                if self.compute is not None:
                    return self.compute(batch)
                output = pl_module.validation_step(batch, index)
                if output is None:
                    raise LossError(
                        f"The validation_step of {type(pl_module).__name__} returned nothing: let it return its loss, "
                        "or give compute=."
                    )
                return scalars(output)

        def prepare(batch: Any) -> Any:
            return move_to_device(trainer.precision_plugin.convert_input(batch), pl_module.device)

        means = evaluate(pl_module, map(prepare, self.batches), compute, self.iters)
        if trainer.world_size > 1:
            means = {key: trainer.strategy.reduce(value, reduce_op="mean") for key, value in means.items()}
        return {f"val_{key}": value for key, value in means.items()}


def evaluate(
    module: torch.nn.Module, batches: Iterable[Any], compute: Callable[[Any, int], dict[str, Any]], iters: int
) -> dict[str, Tensor]:
    """Averages what ``compute`` returns over batches, with the module in evaluation mode and without gradients.

    Args:
        module: Whose mode is changed, and put back for every submodule.
        batches: The batches, on their device.
        compute: Turns a batch and its index into ``{"loss": ..., ...}``.
        iters: How many batches at most; 0 takes all.

    Returns:
        Mean by name, each a tensor without dimensions.

    Raises:
        DataError: There was no batch.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    sums: dict[str, Any] = {}
    samples = 0
    try:
        with torch.no_grad():
            for index, batch in enumerate(islice(batches, iters or None)):
                size = _samples(batch)
                samples += size
                for key, value in compute(batch, index).items():
                    sums[key] = sums.get(key, 0.0) + value * size
    finally:
        for part, mode in modes.items():
            part.training = mode
    if not sums:
        raise DataError("The validation data is empty: its loader gave no batch.")
    return {key: torch.as_tensor(total / samples) for key, total in sums.items()}


def _samples(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if hasattr(batch, "values") else batch if isinstance(batch, list | tuple) else ()
    return next((_samples(part) for part in parts if isinstance(part, Tensor)), 1)
