"""The first step of a training in a process: what it computes is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from darkit.engine.steps.counting import StepCount
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
        """Compute the loss of a batch."""
        with self._count.forward(batch):
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
