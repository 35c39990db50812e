"""The first optimizer step of Lightning's own loop: what it computes is counted, and later steps cost nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
from torch import nn

from darkit.engine.lightning import gives_single_batches
from darkit.engine.steps.counting import StepCount
from darkit.engine.steps.sharding import is_sharded
from darkit.runs.graph import Graph
from darkit.runs.work import Work


class FirstStep:
    """Stands for two functions of a trainer's strategy until the first step is done.

    Args:
        trainer: The trainer, in ``on_fit_start``.
        module: The user's module.
        peak_flops: The operations per second that a device can do at most, or 0.
        tell: Gets the work of the step and the graph of the model.
    """

    def __init__(
        self, trainer: lightning.Trainer, module: nn.Module, peak_flops: float, tell: Callable[[Work, Graph], None]
    ) -> None:
        self._trainer, self._tell, self._peak_flops = trainer, tell, peak_flops
        self._strategy: Any = trainer.strategy
        self._count = StepCount(module, "strategy=fsdp" if is_sharded(trainer) else "")
        self._batch: Any = None
        self._is_odd = False  # whether this is no step like others
        self._training_step, self._backward = self._strategy.training_step, self._strategy.backward
        self._own: dict[str, Any] = {"training_step": self.training_step, "backward": self.backward}
        vars(self._strategy).update(self._own)

    def detach(self) -> None:
        """Give the strategy its own functions back."""
        for name, function in self._own.items():
            if vars(self._strategy).get(name) == function:
                delattr(self._strategy, name)

    def training_step(self, *arguments: Any, **settings: Any) -> Any:
        """Compute a batch; with manual optimization its backward passes and optimizer steps too."""
        batch = arguments[0] if arguments and gives_single_batches(self._trainer) else None
        again, self._batch = batch is not None and batch is self._batch, batch
        with self._count.forward(batch, is_new=not again), self._count.without_optimizers():
            output = self._training_step(*arguments, **settings)
        self._is_odd |= output is None and self._trainer.lightning_module.automatic_optimization
        return output

    def backward(self, *arguments: Any, **settings: Any) -> Any:
        """Compute the gradients."""
        with self._count.counting():
            return self._backward(*arguments, **settings)

    def after_batch(self, steps: int) -> bool:
        """Tell what was counted when the step is done, and return whether it is.

        Args:
            steps: Optimizer steps of the batch.
        """
        if not steps:
            return False
        self.detach()
        if steps > 1 or len(self._trainer.optimizers) > 1:
            self._count.refuse("several optimizer steps per batch")
            self._count.add_size(None, None)
        elif self._is_odd:
            self._count.refuse("a batch without a loss in the first step")
            self._count.add_size(None, None)
        trainer = self._trainer
        device = self._strategy.root_device.type
        work = self._count.work(trainer.world_size, device, str(trainer.precision), self._peak_flops)
        self._tell(work, self._count.graph())
        return True
