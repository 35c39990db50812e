"""The operations of a model's weights in a forward pass: accumulations for spikes, multiplications for real numbers.

A matrix product or convolution with an input of spikes needs one accumulation for every weight that a spike meets, and
nothing for silent inputs; any other one needs a multiplication and an addition for every weight and input (Merolla et
al., 2014). Spikes are 0 or of one size, with either sign: that size is a factor of the weights. They are counted where
torch computes them, so functional calls count as modules do. The rules are those of spikingjelly's ``SynOpCounter`` and
``MACCounter`` for matrix products and convolutions, which know spikes of 0 and 1 only. A module whose class has a true
attribute ``spike_inputs`` gets weighted sums of spikes, and every input that is not 0 counts as one. Fused attention
and recurrent layers count as dense. Additions, normalisation and the neurons themselves are not counted. A product
without a rule, such as `nn.Bilinear`, is named in a warning.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

logger = logging.getLogger(__name__)
_TOLD: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models with a warning
_aten = torch.ops.aten
_SPIKING_INPUTS = "spike_inputs"
PRODUCTS = {
    *("_trilinear", "_sparse_addmm", "_sparse_mm", "_int_mm", "_grouped_mm", "_scaled_grouped_mm", "_cdist_forward"),
    *("matmul", "einsum", "mkldnn_linear", "miopen_rnn", "_miopen_rnn", "addbmm", "addbmm_"),
    *("_addmm_activation", "conv_tbc", "conv_tbc_backward"),
    *("_scaled_dot_product_fused_attention_overrideable", "_transformer_encoder_layer_fwd"),
}
"""Names of operators that multiply matrices and have no rule or formula of their own."""


@dataclass
class Operations:
    """The operations of one module in a forward pass.

    Attributes:
        multiplied: Multiplications with an addition (MAC).
        accumulated: Additions alone (AC), the synaptic operations.
        dense: The MACs if every input were a real number.
    """

    multiplied: int = 0
    accumulated: int = 0
    dense: int = 0

    def add(self, accumulated: int | None, dense: int) -> None:
        """Add the operations of one call, which has accumulations alone or, with None, none."""
        self.multiplied += dense if accumulated is None else 0
        self.accumulated += accumulated or 0
        self.dense += dense


@dataclass
class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered.

    Attributes:
        found: The operations of each module, by its name.
        running: The name of each module that is running, the innermost one last, and whether its inputs that are not 0
            count as spikes.
        uncounted: Names of operators that have products but no rule.
    """

    found: dict[str, Operations] = field(default_factory=dict)
    running: list[tuple[str, bool]] = field(default_factory=list)
    uncounted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(function)
        if rule is None:
            output = NotImplemented
            if isinstance(function, torch._ops.OpOverload):
                with self:  # torch.inference_mode passes on functions that are made of others, such as matmul
                    output = function.decompose(*args, **(kwargs or {}))
                name = function._overloadpacket.__name__
                if output is NotImplemented and name in PRODUCTS:
                    self.uncounted.add(name)
            return function(*args, **(kwargs or {})) if output is NotImplemented else output
        output = function(*args, **(kwargs or {}))
        name, spiking = self.running[-1] if self.running else ("", False)
        self.found.setdefault(name, Operations()).add(*rule(args, output, spiking))
        return output


@contextmanager
def counting(model: nn.Module) -> Iterator[dict[str, Operations]]:
    """Count the operations of a forward pass within the block, by the names of the modules that do them."""
    counter = _Counter()

    def enter(name: str) -> Callable[..., None]:
        return lambda module, arguments: counter.running.append((name, getattr(type(module), _SPIKING_INPUTS, False)))

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        counter.running.pop()

    handles = []
    for name, part in model.named_modules():
        handles.append(part.register_forward_pre_hook(enter(name)))
        handles.append(part.register_forward_hook(leave, always_call=True))
    try:
        with counter:
            yield counter.found
    finally:
        for handle in handles:
            handle.remove()
    if counter.uncounted and model not in _TOLD:
        _TOLD.add(model)
        logger.warning(
            "The operations and energy of %s lack those of %s, for which there is no rule.",
            type(model).__name__,
            ", ".join(sorted(counter.uncounted)),
        )


def is_spikes(values: Tensor) -> bool:
    """Return whether all values are 0 or of one size, with either sign."""
    if values.dtype is torch.bool or not values.numel():
        return True
    sizes = values.abs()
    return bool(((sizes == 0) | (sizes == sizes.max())).all().item())


def _matrices(x: Tensor, y: Tensor, spiking: bool) -> tuple[int | None, int]:
    """Count x (..., M, K) times y (..., K, N): accumulations, or None for real numbers, and dense MACs."""
    x, y = (one if one.layout is torch.strided else one.to_dense() for one in (x, y))
    dense = x.numel() * y.shape[-1]
    first, second = spiking or is_spikes(x), is_spikes(y)
    if not first and not second:
        return None, dense
    meeting = (x != 0).sum(-2) if first else torch.full_like(x[..., 0, :], x.shape[-2], dtype=torch.long)  # (..., K)
    met = (y != 0).sum(-1) if second else torch.full_like(y[..., 0], y.shape[-1], dtype=torch.long)
    return int((meeting * met).sum().item()), dense


def _convolution(args: Any, output: Tensor, spiking: bool) -> tuple[int | None, int]:
    x, weight, _, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    dense = (x if transposed else output).numel() * weight.shape[1] * prod(weight.shape[2:])
    first, second = spiking or is_spikes(x), is_spikes(weight)
    if not first and not second:
        return None, dense
    active = (x != 0).float() if first else torch.ones_like(x, dtype=torch.float32)
    used = (weight != 0).float() if second else torch.ones_like(weight, dtype=torch.float32)
    meetings = _aten.convolution(active, used, None, stride, padding, dilation, transposed, output_padding, groups)
    return int(meetings.round().long().sum().item()), dense


def _attention(args: Any, output: Any, spiking: bool) -> tuple[None, int]:
    """Count fused attention as dense: its weights are real numbers."""
    query, key, value = args[:3]
    return None, prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _projected_attention(args: Any, output: Any, spiking: bool) -> tuple[None, int]:
    """Count `nn.MultiheadAttention` in one call, of a sequence with itself, as dense."""
    query, inner, outer = args[0], args[5], args[7]
    return None, prod(query.shape[:-1]) * (inner.numel() + outer.numel() + 2 * query.shape[1] * query.shape[2])


def _recurrent(args: Any, output: Any, spiking: bool) -> tuple[None, int]:
    """Count a fused recurrent layer as dense: what it passes on are real numbers."""
    given = args[1] if isinstance(args[1], list | tuple) else args[1:3]
    weights = sum(one.numel() for one in given if isinstance(one, Tensor) and one.ndim == 2)
    return None, prod(args[0].shape[:-1]) * weights


def _added(args: Any, output: Any, spiking: bool) -> tuple[int | None, int]:
    """Count a product of matrices that is added to another argument."""
    return _matrices(args[1], args[2], spiking)


def _product(args: Any, output: Any, spiking: bool) -> tuple[int | None, int]:
    """Count a product of matrices and vectors."""
    x, y = args[0], args[1]
    return _matrices(x if x.ndim > 1 else x[None], y if y.ndim > 1 else y[:, None], spiking)


_RULES: dict[Any, Callable[[Any, Any, bool], tuple[int | None, int]]] = {
    **dict.fromkeys((_aten.mm.default, _aten.mm.out, _aten.bmm.default, _aten.bmm.out), _product),
    **dict.fromkeys((_aten.mv.default, _aten.mv.out, _aten.dot.default, _aten.vdot.default), _product),
    **dict.fromkeys((_aten.addmm.default, _aten.addmm.out, _aten.addmm_.default), _added),
    **dict.fromkeys((_aten.baddbmm.default, _aten.baddbmm.out, _aten.baddbmm_.default), _added),
    **dict.fromkeys((_aten.addbmm.default, _aten.addbmm.out, _aten.addbmm_.default), _added),
    **dict.fromkeys(
        (_aten.addmv.default, _aten.addmv.out, _aten.addmv_.default),
        lambda args, _, spiking: _matrices(args[1], args[2][:, None], spiking),
    ),
    _aten.linear.default: lambda args, _, spiking: _product((args[0], args[1].t()), _, spiking),
    _aten._addmm_activation.default: _added,
    _aten.convolution.default: _convolution,
    _aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    _aten._scaled_dot_product_flash_attention.default: _attention,
    _aten._scaled_dot_product_efficient_attention.default: _attention,
    _aten._scaled_dot_product_cudnn_attention.default: _attention,
    _aten._native_multi_head_attention.default: _projected_attention,
    _aten.mkldnn_rnn_layer.default: _recurrent,
    _aten._cudnn_rnn.default: _recurrent,
}
