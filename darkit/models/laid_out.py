"""Linear layers whose weights are laid out for one row on a CPU, as the generation of one text needs them.

One row times a matrix is bound by reading the matrix. The kernels read a widening one, such as 512 to 2,048, in 226 us
when the numbers that one input is multiplied with lie side by side, and in 388 us in the order of `nn.Linear`, where
those of one output do. Of a narrowing one, that order is the faster (245 us of 376).
"""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .functions import has_own_backward, is_plain

_AFTER = 8
"""Rows that layers compute as they are before they are laid out, which takes as long as some ten rows save."""

_Version = tuple[Tensor, int, int]


class LaidOut:
    """Linear layers, with copies of their weights that live as long as this object: for one generation.

    Each row is computed with the weights as they are then: a copy is used while the layers' weights are the same
    tensors, in the same memory and of the same version as when it was made, and no optimizer has taken a step. Layers
    that are more than their weights say (hooks, adapters, parametrizations, quantized weights) are called, and so are
    all for several rows, for gradients, in other precisions and on other devices.
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[nn.Module, ...], tuple[list[_Version], Tensor]] = {}
        self._rows: dict[tuple[nn.Module, ...], int] = {}
        self._narrowing: set[tuple[nn.Module, ...]] = set()  # which are called
        self._watched = False

    def __call__(self, hidden: Tensor, *layers: nn.Module) -> Tensor:
        """Return the outputs of layers for the same input (..., I), side by side (..., O)."""
        if hidden.numel() == hidden.shape[-1] and not torch.is_grad_enabled() and has_own_backward(hidden):
            weight = self._weight(layers)
            if weight is not None:
                return F.linear(hidden, weight, layers[0]._parameters["bias"])
        return side_by_side(hidden, *layers)

    def forget(self) -> None:
        """Drop all copies; the next rows make new ones."""
        self._copies.clear()

    def _weight(self, layers: tuple[nn.Module, ...]) -> Tensor | None:
        """Return the weights (O, I) of layers, laid out, or None where the layers have to be called."""
        if layers in self._narrowing:
            return None
        biased = len(layers) == 1
        for layer in layers:  # a generator would take longer than what it looks at
            if not is_plain(layer, biased=biased):
                return None
        found = self._copies.get(layers)
        if found is not None and _are_those_of(layers, found[0]):
            return found[1]
        weights: list[Tensor] = [layer._parameters["weight"] for layer in layers]  # type: ignore[misc]  # of a Linear
        if any(weight.is_inference() for weight in weights):  # which have no version
            return None
        if sum(len(weight) for weight in weights) < weights[0].shape[1]:
            self._narrowing.add(layers)
            return None
        versions = [(weight, weight._version, weight.data_ptr()) for weight in weights]
        rows = self._rows[layers] = self._rows.get(layers, 0) + 1
        if rows <= _AFTER:
            return None
        if not self._watched:
            self._watched = True
            _forget_at_a_step(self)
        joined = torch.cat(weights) if len(weights) > 1 else weights[0]
        laid_out = joined.detach().t().contiguous().t()
        self._copies[layers] = versions, laid_out
        self._rows[layers] = 0
        return laid_out


def side_by_side(hidden: Tensor, *layers: nn.Module) -> Tensor:
    """Call layers with the same input, and return their outputs side by side."""
    outputs: list[Tensor] = [layer(hidden) for layer in layers]
    return torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]


def _are_those_of(layers: tuple[nn.Module, ...], versions: list[_Version]) -> bool:
    """Return whether layers have the weights of which a copy was made."""
    for layer, (made, version, place) in zip(layers, versions, strict=True):
        weight = layer._parameters["weight"]
        if weight is not made or made._version != version or made.data_ptr() != place:
            return False
    return True


def _forget_at_a_step(linear: LaidOut) -> None:
    """Drop the copies when an optimizer takes a step: fused kernels change weights and leave their version as it is."""
    kept = weakref.ref(linear)

    def forget(*given: object) -> None:
        found = kept()
        if found is not None:
            found.forget()

    weakref.finalize(linear, register_optimizer_step_post_hook(forget).remove).atexit = False
