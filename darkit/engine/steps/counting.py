"""What one optimizer step computes: its samples, its operations, and the calls of the model's modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from darkit.engine.config import CUTS
from darkit.engine.device import known_peak
from darkit.engine.metrics.operations import OperationCounter, can_count, first_tensor, has_compiled, size_of
from darkit.engine.steps.calls import GradientOrigins, ModuleCalls, graph_without_calls
from darkit.runs import files
from darkit.runs.graph import Graph, write_graph
from darkit.runs.run import START_RUN
from darkit.runs.safe import as_dict
from darkit.runs.work import WORK, Work, read_work


class StepCount:
    """Counts one optimizer step, of one batch or of several that are accumulated.

    Args:
        module: The model.
        refusal: Why its operations cannot be counted; empty if they can.
        is_compiled: Whether the model is compiled as a whole, so that no calls can be seen.
        only_first: Whether only the first call of the model is seen, of several in a block.
    """

    def __init__(
        self, module: nn.Module, refusal: str = "", *, is_compiled: bool = False, only_first: bool = False
    ) -> None:
        self.module = module
        self._refusal = refusal or ("" if can_count() else "an older torch")
        self._counter = OperationCounter()
        self._is_counting = False
        self._is_compiled, self._only_first = is_compiled, only_first
        self._calls: ModuleCalls | None = None
        self._samples: int | None = 0
        self._tokens: int | None = 0

    @contextmanager
    def forward(self, batch: Any, *, is_new: bool = True) -> Iterator[None]:
        """Count a batch, if it is new, and its forward pass in a block; the calls of the first one are seen."""
        samples, tokens = size_of(batch)
        if is_new:
            self.add_size(samples if first_tensor(batch) is not None else None, tokens)
        seeing: AbstractContextManager[Any] = nullcontext()
        if self._calls is None:
            self._calls = ModuleCalls(self.module, GradientOrigins(batch), only_first=self._only_first)
            seeing = nullcontext() if self._is_compiled else self._calls.seen()
        with self.counting(), seeing:
            yield

    def add_size(self, samples: int | None, tokens: int | None) -> None:
        """Add the size of a batch, None where it is not known, which is then not known of the step either."""
        self._samples = None if samples is None or self._samples is None else self._samples + samples
        self._tokens = None if tokens is None or self._tokens is None else self._tokens + tokens

    def set_size(self, samples: int | None, tokens: int | None) -> None:
        """Set what is given of the step's size."""
        self._samples = self._samples if samples is None else samples
        self._tokens = self._tokens if tokens is None else tokens

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the operations of a block; one within another counts nothing twice."""
        if self._refusal or self._is_counting:
            yield
            return
        self._is_counting = True
        try:
            with self._counter:
                yield
        finally:
            self._is_counting = False

    @contextmanager
    def without_optimizers(self) -> Iterator[None]:
        """Leave out of a block what optimizers compute in their steps."""

        def pause(*arguments: Any) -> None:
            self._counter.is_paused = True

        def resume(*arguments: Any) -> None:
            self._counter.is_paused = False

        handles = [register_optimizer_step_pre_hook(pause), register_optimizer_step_post_hook(resume)]
        try:
            yield
        finally:
            self._counter.is_paused = False
            for handle in handles:
                handle.remove()

    def refuse(self, reason: str) -> None:
        """Say why the operations are not counted, unless another reason is known."""
        self._refusal = self._refusal or reason

    def work(self, processes: int, device: str, precision: str, peak_flops: float = 0.0) -> Work:
        """Return what the step computes in all processes, each of which does as much as this one."""
        weights = list(self.module.parameters())
        uncounted = self._refusal or ", ".join(sorted(self._counter.uncounted))
        peak, source = known_peak(device, precision, peak_flops)
        return Work(
            parameters=sum(weight.numel() for weight in weights),
            trained=sum(weight.numel() for weight in weights if weight.requires_grad),
            samples=None if self._samples is None else self._samples * processes,
            tokens=None if self._tokens is None else self._tokens * processes,
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


def record_step(folder: Path, check: Callable[[], None], work: Work, graph: Graph) -> None:
    """Record in ``run.json`` what a step computes, and the graph of the model, unless they are there already.

    The first step of a resumed training may be the last one of an epoch, with fewer samples. What was recorded then
    stays, apart from the peak of the device, unless a setting was changed that says what a step computes.

    Args:
        folder: The run directory.
        check: Raises an error if it is not the run's any more.
        work: What the step computes.
        graph: The modules of the model.
    """
    info = files.read_json(folder / files.RUN)
    known = read_work(info)
    if known is not None and _has_fewer(work, known) and _is_resumed_alike(info):
        work = replace(known, peak=work.peak, peak_source=work.peak_source)
    found = dict(vars(work))
    if info.get(WORK) != found:
        check()
        files.write_json(folder / files.RUN, info | {WORK: found})
    if not (folder / files.GRAPH).exists():
        check()
        write_graph(folder, graph)


def _has_fewer(work: Work, known: Work) -> bool:
    return work.samples is not None and known.samples is not None and work.samples < known.samples


def _is_resumed_alike(info: Mapping[str, Any]) -> bool:
    """Return whether a run was resumed with the model and the samples in a step that it had before."""
    entries = info.get("continued")
    if not isinstance(entries, list) or not entries or info.get("made_by") == START_RUN:
        return False  # the config of a loop of one's own is not compared
    changes = as_dict(as_dict(entries[-1]).get("changes"))
    return not any(key in CUTS or str(key).startswith(("model.", "data.")) for key in changes)
