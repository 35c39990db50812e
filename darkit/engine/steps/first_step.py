"""The first step of a training in a process: what it computes is counted, and a model that steps itself is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from darkit.engine.steps.counting import StepCount
from darkit.errors import LossError
from darkit.runs.graph import Graph
from darkit.runs.work import Work


class FirstStep:
    """Stands for three functions of an adapter until its first optimizer step, so that later steps cost nothing more.

    Args:
        adapter: The `darkit.engine.steps.adapter.Adapter`, whose training is about to start.
        tell: Gets the work of the step and the graph of the model, or None.
    """

    def __init__(self, adapter: Any, tell: Callable[[Work, Graph], None] | None) -> None:
        self._adapter, self._tell = adapter, tell
        config = adapter.config
        refusals = {"compile=true": config.compile, "strategy=fsdp": config.strategy == "fsdp"}
        refusal = next((reason for reason, applies in refusals.items() if applies), "")
        self._count = StepCount(adapter.module, refusal, is_compiled=config.compile)
        self._backward, self._step = adapter._backward, adapter._step
        adapter._compute, adapter._backward, adapter._step = self.compute, self.backward, self.step

    def compute(self, batch: Any, index: int) -> dict[str, Any]:
        """Compute the loss of a batch. Raises `LossError` if the model steps an optimizer itself meanwhile."""
        with _refusing_steps(self._adapter.module), self._count.forward(batch):
            return self._adapter.compute(batch, index)  # type: ignore[no-any-return]

    def backward(self, *arguments: Any, **settings: Any) -> Any:
        """Compute the gradients."""
        with self._count.counting():
            return self._backward(*arguments, **settings)

    def step(self) -> Any:
        """Step the optimizer, after which the adapter's own functions are back, and tell what was counted."""
        adapter = self._adapter
        adapter._compute, adapter._backward, adapter._step = adapter.compute, self._backward, self._step
        stepped = self._step()
        config, processes = adapter.config, adapter.trainer.world_size
        adapter.work = self._count.work(processes, adapter.device.type, config.precision, config.peak_flops)
        if self._tell is not None:
            self._tell(adapter.work, self._count.graph())
        return stepped


@contextmanager
def _refusing_steps(module: nn.Module) -> Iterator[None]:
    """Refuse a step of an optimizer within the block.

    Raises:
        LossError: There is one: that optimizer's state would not be saved, and the weights would be stepped twice.
    """
    name = type(module).__name__

    def refuse(optimizer: Optimizer, *arguments: Any) -> None:
        raise LossError(
            f"{name} steps a {type(optimizer).__name__} itself while its loss is computed, and fit steps one too. "
            "Return the loss and give optimizer=, or write the loop in the train method of a darkit.core.Trainer "
            "subclass."
        )

    handle = register_optimizer_step_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()
