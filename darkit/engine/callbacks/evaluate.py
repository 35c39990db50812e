"""Evaluation every so many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from darkit.engine.callbacks.base import StepCallback, check_interval, is_due
from darkit.engine.device import kept_generators, move_to_device
from darkit.engine.metrics.gathering import fresh_metrics
from darkit.engine.metrics.means import Means, Weigher
from darkit.engine.metrics.undisturbed import evaluating
from darkit.engine.steps.adapter import bare_module
from darkit.engine.steps.averages import evaluated_weights
from darkit.engine.steps.loss import Step, scalars
from darkit.errors import DataError, LossError


class StepEvaluate(StepCallback):
    """Evaluate on the validation data and add ``val_loss`` (and ``val_<name>``) to the step's outputs.

    The training is not affected: all random generators are restored.

    Args:
        batches: The validation data: a loader, iterated again for every evaluation.
        every: Steps between evaluations; 0 evaluates at the last step only.
        iters: Batches per evaluation; 0 uses all.
        compute: Returns ``{"loss": ..., ...}`` of a batch; by default the module's ``validation_step(batch, index)``,
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

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        if is_due(trainer, step, self.every):
            # even a loader that does not shuffle draws a seed for its workers
            with kept_generators(), evaluated_weights(trainer):
                outputs.update(self.evaluate(trainer, pl_module))

    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Evaluate now.

        Returns:
            The means with the prefix ``val_``, weighted as `darkit.engine.metrics.means` describes, over the batches of
            all processes; and this process's first medium of each name.
        """

        def compute(batch: Any, index: int) -> dict[str, Any]:
            with trainer.precision_plugin.val_step_context():
                if isinstance(self.compute, Step):
                    return self.compute(batch, index)
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

        def everywhere(means: Means) -> Means:
            if trainer.world_size == 1:
                return means
            found: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, means.on_host())
            return Means().merge(found)

        module = bare_module(pl_module)
        means: dict[str, Any] = dict(evaluate(module, map(prepare, self.batches), compute, self.iters, everywhere))
        if isinstance(self.compute, Step):
            means |= self.compute.take_media()
        return {key if key.startswith("val_") else f"val_{key}": value for key, value in means.items()}


def evaluate(
    module: nn.Module,
    batches: Iterable[Any],
    compute: Callable[[Any, int], dict[str, Any]],
    iters: int,
    everywhere: Callable[[Means], Means] | None = None,
) -> dict[str, Tensor]:
    """Average what ``compute`` returns over batches, with the module in evaluation mode and without gradients.

    Modes, buffers and state in attributes of the module are restored; its torchmetrics objects are reset and then
    restored.

    Args:
        module: The module to evaluate.
        batches: The batches, on their device.
        compute: Returns ``{"loss": ..., ...}`` of a batch and its index.
        iters: Maximum number of batches; 0 uses all.
        everywhere: Combines this process's means with those of all processes.

    Returns:
        Mean by name, each a tensor without dimensions in double precision; for ``count`` the sum. A value is averaged
        over the batches that have it.

    Raises:
        DataError: The loader has no batch.
    """
    weigh = Weigher(module)
    means = Means()
    seen = False
    with evaluating(module), fresh_metrics(module), torch.no_grad():
        for index, batch in enumerate(islice(batches, iters or None)):
            means.add(weigh(lambda batch=batch, index=index: compute(batch, index), batch))  # type: ignore[misc]
            seen = True
        if not seen:
            raise DataError("The validation data is empty: its loader gave no batch.")
        gathered = means.compute_metrics()
    return (means if everywhere is None else everywhere(means)).result() | gathered
