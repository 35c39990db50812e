"""What a step of a hand-written loop computes: counted where the loop says that a step is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from darkit.engine.checkpoints.weights import bare
from darkit.engine.session import Session
from darkit.engine.steps.counting import StepCount, record_step
from darkit.engine.steps.parts import is_split
from darkit.errors import ConfigError


class CountsSteps:
    """The part of an `darkit.core.active.ActiveRun` that counts a step."""

    _session: Session
    _lock: Any
    _size: int
    _closed: bool
    _has_counted = False

    @contextmanager
    def count_step(
        self,
        model: nn.Module,
        batch: Any = None,
        *,
        samples: int | None = None,
        tokens: int | None = None,
        peak_flops: float = 0.0,
    ) -> Iterator[None]:
        """Count what a step computes: ``with run.count_step(model, batch):`` around its forward and backward passes.

        Only the first block counts; later ones cost nothing. Whatever the model computes in it counts, and nothing that
        an optimizer does. The block is what happens for one step of `log`: with accumulated batches, all of them.

        Args:
            model: The module.
            batch: The batch of the step, whose size is that of its first tensor.
            samples: The samples of the step in this process, where ``batch`` does not say so.
            tokens: Its tokens, likewise.
            peak_flops: The operations per second that a device can do at most, for the MFU; 0 shows none.

        Raises:
            ConfigError: ``model`` is no module, or a number is out of its range.
            StorageError: It could not be recorded.
        """
        if not isinstance(model, nn.Module):
            raise ConfigError(f"count_step needs the model, an nn.Module, not {type(model).__name__}.")
        for name, value in (("samples", samples), ("tokens", tokens)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if self._has_counted or self._closed or not self._session.writes:
            yield
            return
        self._has_counted = True
        module = bare(model)
        count = StepCount(module, _refusal(model), only_first=True)
        with count.forward(batch), count.without_optimizers():
            yield
        count.set_size(samples, tokens)
        graph = count.graph()
        if not graph.has_shapes and not graph.unseen:
            count.refuse("the model was not called in the block of count_step")
        device = next((one.device.type for one in module.parameters()), "cpu")
        work = count.work(self._size, device, "", peak_flops)
        with self._lock:
            record_step(self._session.folder, self._session.check, work, graph)


def _refusal(model: nn.Module) -> str:
    """Return why the operations of a model cannot be counted, or empty text."""
    if isinstance(model, nn.DataParallel):
        return "DataParallel"  # whose threads compute unseen
    is_flat = any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules())
    return "a model in parts" if is_flat or any(map(is_split, model.parameters())) else ""
