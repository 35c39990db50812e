"""The first step of a training in a process: what it computes is counted, and a model that steps itself is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from darkit.engine.device import known_peak
from darkit.engine.metrics.operations import OperationCounter, can_count, size_of
from darkit.errors import LossError
from darkit.runs.work import Work


class FirstStep:
    """Stands for three functions of an adapter until its first optimizer step, so that later steps cost nothing more.

    Args:
        adapter: The `darkit.engine.steps.adapter.Adapter`, whose training is about to start.
        tell: Gets the work of the step, or None.
    """

    def __init__(self, adapter: Any, tell: Callable[[Work], None] | None) -> None:
        self._adapter, self._tell = adapter, tell
        config = adapter.config
        refusals = {
            "compile=true": config.compile,
            "strategy=fsdp": config.strategy == "fsdp",
            "an older torch": not can_count(),
        }
        self._refusal = next((reason for reason, applies in refusals.items() if applies), "")
        self._counter = OperationCounter()
        self._samples, self._tokens = 0, 0
        self._is_text = True
        self._backward, self._step = adapter._backward, adapter._step
        adapter._compute, adapter._backward, adapter._step = self.compute, self.backward, self.step

    def compute(self, batch: Any, index: int) -> dict[str, Any]:
        """Compute the loss of a batch. Raises `LossError` if the model steps an optimizer itself meanwhile."""
        samples, tokens = size_of(batch)
        self._samples += samples
        self._tokens += tokens or 0
        self._is_text &= tokens is not None
        with _refusing_steps(self._adapter.module), self._counting():
            return self._adapter.compute(batch, index)  # type: ignore[no-any-return]

    def backward(self, *arguments: Any, **settings: Any) -> Any:
        """Compute the gradients."""
        with self._counting():
            return self._backward(*arguments, **settings)

    def step(self) -> Any:
        """Step the optimizer, after which the adapter's own functions are back, and tell what was counted."""
        adapter = self._adapter
        adapter._compute, adapter._backward, adapter._step = adapter.compute, self._backward, self._step
        stepped = self._step()
        adapter.work = self._work()
        if self._tell is not None:
            self._tell(adapter.work)
        return stepped

    def _counting(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._refusal else self._counter

    def _work(self) -> Work:
        adapter = self._adapter
        processes = adapter.trainer.world_size
        weights = list(adapter.module.parameters())
        uncounted = self._refusal or ", ".join(sorted(self._counter.uncounted))
        peak, source = known_peak(adapter.device.type, adapter.config.precision, adapter.config.peak_flops)
        return Work(
            parameters=sum(weight.numel() for weight in weights),
            trained=sum(weight.numel() for weight in weights if weight.requires_grad),
            samples=self._samples * processes,
            tokens=self._tokens * processes if self._is_text else None,
            flops=None if uncounted else self._counter.flops * processes,
            uncounted=uncounted,
            peak=None if peak is None else peak * processes,
            peak_source=source,
        )


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
