"""Gradient accumulation: the batches of one optimizer step count like one large batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from darkit.engine.metrics.denominators import Weight
from darkit.engine.metrics.means import Means, Weighed


class Window:
    """The batches of one optimizer step.

    The total weight is known only at the end. So the loss of each batch is scaled by its weight relative to the first
    batch, and the gradients are finally divided by the sum of these shares. With equal weights this is the plain mean,
    bit for bit.

    Args:
        size: Batches per step.

    Attributes:
        weights: Weights of the values of the last step that was closed, by name, over its batches.
        empty: Whether the last batch's loss is over no items, so that its gradients may be nan: see
            `backward_of_nothing`. On an accelerator a tensor, unless its gradients are surely zero then.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.weights: dict[str, Weight] = {}
        self.empty: bool | Tensor = False
        self._first: Weight | None = None
        self._shares: Weight = 0.0
        self._means = Means()
        self._batches = 0

    def __len__(self) -> int:
        """Number of batches so far."""
        return self._batches

    def add(self, weighed: Weighed, first: Callable[[Weight], Weight] | None = None) -> Tensor | None:
        """Add one batch.

        Args:
            weighed: Its values and weights.
            first: Maps the first batch's weight to the reference weight, the same in all processes; None if there is
                only one.

        Returns:
            The tensor for ``backward``, or None for a loss over no items.
        """
        loss, weight = weighed.values["loss"], weighed.weights["loss"]
        self._batches += 1
        self.empty = not isinstance(weight, Tensor) and weight == 0
        self._means.add(weighed)
        if self._first is None and not (first is None and not isinstance(weight, Tensor) and weight == 0):
            self._first = weight if first is None else first(weight)
        if self.empty:
            return None if first is None else 0.0 * torch.nan_to_num(loss)  # other processes wait for gradients
        share = weight / _positive(self._first)
        self._shares = self._shares + share
        if isinstance(weight, Tensor):
            self.empty = False if weighed.safe else weight <= 0
            loss = torch.where(weight > 0, loss, 0.0)
        part: Tensor = loss / self.size * share
        return part

    def loss(self) -> tuple[Weight, Any]:
        """Return the sum of the shares so far, and the mean loss."""
        return self._shares, self._means.mean("loss")

    def has_further(self) -> bool:
        """Return whether there are values besides the loss."""
        return len(self._means.weights()) > 1

    def close(self) -> tuple[Weight, dict[str, Tensor]]:
        """End the step.

        Returns:
            The divisor of the gradients, and the means of the values.
        """
        divisor, means = self._shares / self.size, self._means.result()
        self.weights = self._means.weights()
        self._first, self._shares, self._means, self._batches = None, 0.0, Means(), 0
        return divisor, means


def backward_of_nothing(
    call: Callable[[Tensor], Any], parameters: Iterable[nn.Parameter], empty: bool | Tensor, part: Tensor
) -> None:
    """Do the backward pass of a batch that may count nothing, and give the parameters zeros if so.

    The gradient of a loss such as ``(x * mask).sum() / mask.sum()`` over no items is 0/0, whatever it is multiplied by.
    The pass itself is needed: it is what other processes wait for. Which parameters get a gradient stays the same.

    Args:
        call: Does the pass.
        parameters: The parameters that get gradients.
        empty: `Window.empty`.
        part: The batch's share of the loss.
    """

    def zeroed(gradient: Tensor) -> Tensor:
        if not isinstance(empty, Tensor):
            return torch.zeros_like(gradient)
        where = empty.to(gradient.device)
        if gradient.layout is torch.strided:
            return torch.where(where, 0.0, gradient)
        values = torch.where(where, 0.0, gradient._values())
        return torch.sparse_coo_tensor(gradient._indices(), values, gradient.shape, check_invariants=False)

    hooks = [one.register_hook(zeroed) for one in parameters if one.requires_grad]  # type: ignore[no-untyped-call]
    try:
        call(part)
    finally:
        for hook in hooks:
            hook.remove()


def divide_gradients(optimizer: Optimizer, divisor: Weight) -> None:
    """Divide the gradients of an optimizer's parameters, without waiting for an accelerator."""
    if not isinstance(divisor, Tensor) and divisor in (0.0, 1.0):
        return
    divisor = _positive(divisor)
    alike: dict[Any, list[Tensor]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if type(gradient) is Tensor and gradient.layout is torch.strided:
                alike.setdefault((gradient.device, gradient.dtype), []).append(gradient)
            else:
                gradient.div_(divisor.to(gradient) if isinstance(divisor, Tensor) else divisor)
    for gradients in alike.values():
        torch._foreach_div_(gradients, divisor.to(gradients[0]) if isinstance(divisor, Tensor) else divisor)


def _positive(weight: Any) -> Any:
    return torch.where(weight > 0, weight, 1.0) if isinstance(weight, Tensor) else weight or 1.0
