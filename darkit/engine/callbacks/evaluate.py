"""Evaluation every so many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.plugins import Precision
from torch import Tensor, nn

from darkit.engine.callbacks.base import StepCallback, check_interval, is_due
from darkit.engine.data.shards import shards_of
from darkit.engine.device import kept_generators, move_to_device
from darkit.engine.metrics.denominators import ObservedLoss
from darkit.engine.metrics.gathering import fresh_metrics
from darkit.engine.metrics.means import Means, Weigher
from darkit.engine.metrics.merging import Merging, share_buffers
from darkit.engine.metrics.undisturbed import evaluating
from darkit.engine.steps.adapter import bare_module
from darkit.engine.steps.averages import evaluated_weights
from darkit.engine.steps.loss import Step, scalars
from darkit.engine.steps.sharding import is_sharded
from darkit.errors import DataError, LossError


class StepEvaluate(StepCallback):
    """Evaluate on the validation data and add ``val_loss`` (and ``val_<name>``) to the step's outputs.

    The training is not affected: all random generators are restored. Several processes evaluate every n-th batch each
    if the data can be divided, else all batches; what is returned is the same as with one process, in all of them.

    Args:
        batches: The validation data: a loader, iterated again for every evaluation.
        every: Steps between evaluations; 0 evaluates at the last step only.
        iters: Batches per evaluation; 0 uses all.
        compute: Returns ``{"loss": ..., ...}`` of a batch; by default the module's ``validation_step(batch, index)``,
            which must then return its loss.

    Attributes:
        observer: Another callback's: gets a function that computes the first batch of an evaluation, and that batch;
            calls it and returns what it returns. Or None.
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
        self.evaluated = -1
        self.observer: Callable[[Callable[[], dict[str, Any]], Any], dict[str, Any]] | None = None

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        if is_due(trainer, step, self.every):
            self.evaluated = step
            # even a loader that does not shuffle draws a seed for its workers
            with kept_generators(), evaluated_weights(trainer):
                outputs.update(self.evaluate(trainer, pl_module))

    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Evaluate now, in several processes each its part of the batches.

        Returns:
            The means with the prefix ``val_``, weighted as `darkit.engine.metrics.means` describes, over the batches of
            all processes; and the first medium of each name.
        """
        module = bare_module(pl_module)
        step, of = 0, 1
        merging: Merging | None = None
        if (world := trainer.world_size) > 1:
            merging = Merging(None)
            if (shards := shards_of(self.batches)) is not None:
                # the processes of a split model compute each batch together
                evenly = is_sharded(trainer)
                merging.divided = shards.divide(trainer.global_rank, world, self.iters, evenly=evenly)
                step, of = shards.mine, shards.of
        precision = trainer.precision_plugin
        is_plain = type(precision) is Precision  # it neither converts a batch nor opens a context
        first: dict[str, int] = {}  # the number of the batch of each medium

        def compute(batch: Any, index: int) -> dict[str, Any]:
            if index or self.observer is None:
                return compute_one(batch, index)
            return self.observer(lambda: compute_one(batch, index), batch)

        def compute_one(batch: Any, index: int) -> dict[str, Any]:
            number = index * of + step
            if merging is not None:
                merging.note(batch)
            with nullcontext() if is_plain else precision.val_step_context():
                if isinstance(self.compute, Step):
                    values = self.compute(batch, number)
                    first.update({name: number for name in self.compute.media if name not in first})
                    return values
                if self.compute is not None:
                    return self.compute(batch)
                output = pl_module.validation_step(batch, number)
                if output is None:
                    raise LossError(
                        f"The validation_step of {type(pl_module).__name__} returned nothing: let it return its loss, "
                        "or give compute=."
                    )
                return scalars(output)

        def prepare(batch: Any) -> Any:
            if is_plain and device.type == "cpu":  # as in a training
                return batch
            return move_to_device(precision.convert_input(batch), device)

        device = pl_module.device

        iters = len(range(step, self.iters, of)) if self.iters else 0
        loss = self.compute.observed if isinstance(self.compute, Step) else None
        means: dict[str, Any] = dict(evaluate(module, map(prepare, self.batches), compute, iters, merging, loss))
        if isinstance(self.compute, Step):
            media = self.compute.take_media()
            if merging is not None:
                media = merging.media({name: (first[name], medium) for name, medium in media.items()})
            means |= media
        return {key if key.startswith("val_") else f"val_{key}": value for key, value in means.items()}


def evaluate(
    module: nn.Module,
    batches: Iterable[Any],
    compute: Callable[[Any, int], dict[str, Any]],
    iters: int,
    merging: Merging | None = None,
    loss: ObservedLoss | None = None,
) -> dict[str, Tensor]:
    """Average what ``compute`` returns over batches, with the module in evaluation mode and without gradients.

    Modes, buffers and state in attributes of the module are restored; its torchmetrics objects are reset and then
    restored.

    Args:
        module: The module to evaluate.
        batches: The batches, on their device.
        compute: Returns ``{"loss": ..., ...}`` of a batch and its index.
        iters: Maximum number of batches; 0 uses all.
        merging: Combines the results with those of other processes, which have the first one's buffers meanwhile; None
            with one process.
        loss: The loss in ``compute``, if its call is enough to observe; see `darkit.engine.metrics.denominators`.

    Returns:
        Mean by name, each a tensor without dimensions in double precision; for ``count`` the sum. A value is averaged
        over the batches that have it.

    Raises:
        DataError: The loader has no batch.
    """
    weigh = Weigher(module, loss)
    means = Means()
    seen = False
    with evaluating(module), fresh_metrics(module), torch.no_grad():
        if merging is not None:
            share_buffers(module)
        for index, batch in enumerate(islice(batches, iters or None)):
            means.add(weigh(lambda batch=batch, index=index: compute(batch, index), batch))  # type: ignore[misc]
            seen = True
        if not seen:
            raise DataError("The validation data is empty: its loader gave no batch.")
        return means.result() | means.compute_metrics() if merging is None else merging.merge(means)
