"""What several processes agree on at every step, without a message of its own.

DDP averages the gradients of all parameters over the processes, in a few messages. The adapter has one parameter more,
whose gradient is this process's report on the step: how much its batches count, their loss, and whether it is asked to
stop. So with the gradients every process has the weight and the loss of the whole step, and all decide the same.

Other strategies, 16-bit parameters and hooks that compress the gradients need one message for this, which overlaps
with the backward pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from darkit.engine.device import widest_float
from darkit.engine.metrics.denominators import Weight

BLOCK = 0.5
"""Seconds after which the processes exchange what else they have to: further columns of the log, requests on a GPU."""
_CARRIER = "report_of_process"
_FIELDS = 6  # share, loss (its high and its low part), asked, seconds, further
_HALF = ("16-true", "bf16-true")
_SURELY = 1e-6  # of a total: what an average in single precision may be off
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Report:
    """A step in this process.

    Attributes:
        share: The sum of its batches' weights, relative to the reference.
        loss: Their mean loss.
        further: Whether the step returned other values too.
    """

    share: Weight
    loss: Any
    further: bool


class Agreement:
    """The agreement of several processes on each step of an adapter.

    Args:
        trainer: The trainer, before its strategy wraps the model.
        adapter: The module that the strategy wraps.
        precision: The trainer's precision.
        weight: `weight` at a checkpoint, or None.

    Attributes:
        weight: How much a batch of each process together counted in the last step; None before the first one.
        asks: Returns whether this process is asked to stop.
        asked: Whether any process is, as of the last step at which this was known (`knows`).
        knows: Whether the last step ended a block, or its report was read at once (on a CPU).
        ends_block: Whether the last step ended a block: the same in all processes.
    """

    def __init__(
        self, trainer: Trainer, adapter: LightningModule, precision: str, weight: Weight | None = None
    ) -> None:
        strategy = trainer.strategy
        plain = isinstance(strategy, DDPStrategy) and strategy._ddp_comm_hook is None and precision not in _HALF
        if plain and not hasattr(adapter, _CARRIER):
            adapter.register_parameter(_CARRIER, nn.Parameter(torch.zeros(_FIELDS)))
        self._carrier: Any = getattr(adapter, _CARRIER) if plain else None
        self._adapter = adapter
        self._strategy: Any = strategy
        self._blocks_sync = isinstance(strategy, DDPStrategy)
        self._world = trainer.world_size
        self.weight = weight
        self._reference: Any = None if weight is None else weight / self._world
        self._work: tuple[Tensor, Any] | None = None
        self.asks: Callable[[], bool] = lambda: False
        self.asked = self.knows = self.ends_block = False
        self._has_further: Any = 0.0
        self._since = time.monotonic()
        self._wait, self._steps = 1, 0

    def reference(self, weight: Weight) -> Weight:
        """Return the weight that this step's are relative to, known to all: the last step's per batch.

        The very first one costs a message.
        """
        if self._reference is None:
            mine = torch.as_tensor(weight, dtype=widest_float(self._adapter.device), device=self._adapter.device)
            self._reference = _positive(_plain(self._strategy.reduce(mine.clone(), reduce_op="mean")))
        return self._reference  # type: ignore[no-any-return]

    def backward(self, call: Callable[[Tensor], Any], part: Tensor, report: Report | None) -> None:
        """Do the backward pass of a batch.

        Args:
            call: Does it.
            part: The batch's share of the loss.
            report: What this process says of the step, with its last batch; before that None, and the gradients are
                only added up.
        """
        if report is None:
            if not self._blocks_sync:
                call(part)
                return
            with self._strategy.block_backward_sync():
                call(part)
            return
        message = self._message(report)
        if self._carrier is None:
            message = message.to(widest_float(message.device))
            self._work = (message, torch.distributed.all_reduce(message, async_op=True))
        else:
            self._carrier.grad = None
            part = _Carried.apply(part, self._carrier, message.to(self._carrier.dtype))  # type: ignore[no-untyped-call]
        call(part)

    def collect(self, size: int) -> tuple[Weight, Tensor]:
        """End a step of ``size`` batches a process, after the backward pass of the last one.

        Returns:
            What the averaged gradients are to be divided by, and the mean loss over all processes.
        """
        if self._work is not None:
            found, work = self._work
            work.wait()
            self._work, found = None, found / self._world
        else:
            found, self._carrier.grad = self._carrier.grad.detach().clone(), None
            found = found.to(widest_float(found.device))
        on_host = found.device.type == "cpu"
        share, high, low, asked, seconds, further = found.tolist() if on_host else found.unbind()
        before = self._reference
        total = _whole(share * before * self._world)
        self.weight = _if_positive(total / size, before * self._world)
        self._reference = self.weight / self._world
        self._end_block(asked, seconds, further, on_host)
        count = total / (before * self._world)
        # a mean over no items is nan, as in one process
        mean = (high + low) / count if isinstance(count, Tensor) or count else math.nan
        loss = torch.as_tensor(mean, dtype=found.dtype)
        return total / size / self._world / before, loss

    def _end_block(self, asked: Any, seconds: Any, further: Any, on_host: bool) -> None:
        """Note what is known now, and whether a block of steps ends; elsewhere than on a CPU that waits for the device.

        There the number of steps until the next end is computed from their time.
        """
        self._steps += 1
        self._has_further = self._has_further + further
        self.knows = self.ends_block = False
        if not on_host and self._steps < self._wait:
            return
        if not on_host:
            asked, seconds = torch.stack([asked, seconds]).tolist()
        self.knows, self.asked = True, asked > 0
        self.ends_block = not on_host or seconds >= BLOCK
        if self.ends_block:
            self._wait = max(1, min(_MOST_STEPS, int(BLOCK / max(seconds / self._steps, 1e-6))))
            self._since, self._steps = time.monotonic(), 0

    def take_further(self) -> bool:
        """Return whether any process had further values since the last call; the same in all processes."""
        found, self._has_further = self._has_further, 0.0
        return float(found) > 0

    def _message(self, report: Report) -> Tensor:
        device, share, loss = self._adapter.device, report.share, report.loss
        rest = (float(self.asks()), time.monotonic() - self._since, float(report.further))
        if not isinstance(share, Tensor) and not isinstance(loss, Tensor):
            sum_of_loss = share * loss if share else 0.0
            high = _single(sum_of_loss)
            low = sum_of_loss - high if math.isfinite(high) else 0.0
            return torch.tensor([share, high, low, *rest], dtype=widest_float(device), device=device)
        wide = widest_float(device)
        part, mean = (torch.as_tensor(value, dtype=wide, device=device) for value in (share, loss))
        product = torch.where(part > 0, part * mean, 0.0)
        upper = product.float().to(wide)
        lower = torch.where(upper.isfinite(), product - upper, 0.0)
        # filling a tensor on the device does not wait for it, unlike copying from the host
        return torch.stack([part, upper, lower, *(torch.full_like(part, value) for value in rest)])


class _Carried(torch.autograd.Function):
    """A loss whose backward pass also gives the carrier its gradient, whatever the loss is scaled by."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, carrier: Tensor, message: Tensor) -> Tensor:
        ctx.save_for_backward(message)
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, ctx.saved_tensors[0], None


def _whole(total: Any) -> Any:
    """Round a total that is a number of items up to rounding errors, so that equal batches count exactly the same."""
    if isinstance(total, Tensor):
        near = total.round()
        return torch.where((total - near).abs() <= _SURELY * total, near, total)
    whole = float(round(total)) if math.isfinite(total) else total
    return whole if abs(total - whole) <= _SURELY * total else total


def _single(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32).item())


def _plain(value: Tensor) -> Weight:
    return float(value.item()) if value.device.type == "cpu" else value


def _positive(weight: Any) -> Any:
    return _if_positive(weight, 1.0)


def _if_positive(weight: Any, otherwise: Any) -> Any:
    if isinstance(weight, Tensor):
        return torch.where(weight > 0, weight, otherwise)
    return weight if weight > 0 else otherwise
