"""What one optimizer step computes: its samples, its operations, and the calls of the model's modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn

from darkit.engine.device import known_peak
from darkit.engine.metrics.operations import OperationCounter, can_count, has_compiled, size_of
from darkit.engine.steps.calls import GradientOrigins, ModuleCalls, graph_without_calls
from darkit.runs.graph import Graph
from darkit.runs.work import Work


class StepCount:
    """Counts one optimizer step, of one batch or of several that are accumulated.

    Args:
        module: The model.
        refusal: Why its operations cannot be counted; empty if they can.
        is_compiled: Whether the model is compiled as a whole, so that no calls can be seen.
    """

    def __init__(self, module: nn.Module, refusal: str = "", *, is_compiled: bool = False) -> None:
        self.module = module
        self.refusal = refusal or ("" if can_count() else "an older torch")
        self._counter = OperationCounter()
        self._is_compiled = is_compiled
        self._calls: ModuleCalls | None = None
        self._samples = self._tokens = 0
        self._is_text = True

    @contextmanager
    def forward(self, batch: Any) -> Iterator[None]:
        """Count a batch and its forward pass in a block; the calls of the first one are seen."""
        samples, tokens = size_of(batch)
        self._samples += samples
        self._tokens += tokens or 0
        self._is_text &= tokens is not None
        seeing: AbstractContextManager[Any] = nullcontext()
        if self._calls is None:
            self._calls = ModuleCalls(self.module, GradientOrigins(batch))
            seeing = nullcontext() if self._is_compiled else self._calls.seen()
        with self.counting(), seeing:
            yield

    def counting(self) -> AbstractContextManager[Any]:
        """Return a block whose operations count."""
        return nullcontext() if self.refusal else self._counter

    def work(self, processes: int, device: str, precision: str, peak_flops: float = 0.0) -> Work:
        """Return what the step computes in all processes, each of which does as much as this one."""
        weights = list(self.module.parameters())
        uncounted = self.refusal or ", ".join(sorted(self._counter.uncounted))
        peak, source = known_peak(device, precision, peak_flops)
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

    def graph(self) -> Graph:
        """Return the modules, with the shapes of the calls that were seen."""
        if self._is_compiled or self._calls is None:
            return graph_without_calls(self.module, "compile=true" if self._is_compiled else "no forward pass")
        graph = self._calls.graph()
        if self._calls.error is not None:
            graph.unseen = str(self._calls.error) or type(self._calls.error).__name__
        elif has_compiled():
            graph.unseen = "torch.compile"
        return graph
