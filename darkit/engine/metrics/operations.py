"""The floating-point operations of a computation, counted while it runs and without a change to it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from darkit.engine.spiking.operations import PRODUCTS

_aten = torch.ops.aten
Formula = Callable[..., int]


def _of_vectors(matrix: Any, vector: Any, *, out_val: Any = None) -> int:
    return 2 * int(matrix.numel())


def _of_added_vectors(added: Any, matrix: Any, vector: Any, *, out_val: Any = None, **scales: Any) -> int:
    return 2 * int(matrix.numel())


def _of_linear(inputs: Any, weight: Any, bias: Any = None, *, out_val: Any = None) -> int:
    return 2 * int(inputs.numel()) * int(weight.shape[0])


def _of_layer(inputs: Any, weight: Any, recurrent: Any, *others: Any, out_val: Any = None) -> int:
    """Count one direction of a recurrent layer: each time step of each sample meets every weight."""
    return 2 * _positions(inputs) * (int(weight.numel()) + int(recurrent.numel()))


def _of_layers(inputs: Any, weights: Any, *others: Any, out_val: Any = None) -> int:
    """Count all layers of a recurrent network, whose weights are matrices, and whose biases are not."""
    return 2 * _positions(inputs) * sum(int(weight.numel()) for weight in weights if weight.ndim == 2)


def _positions(inputs: Any) -> int:
    return math.prod(inputs.shape[:-1])


def _twice(formula: Formula) -> Formula:
    """Return the formula of a backward pass, which has a product for the inputs and one for the weights."""
    return lambda *arguments, **settings: 2 * formula(*arguments, **settings)


FORMULAS: dict[Any, Formula] = {  # those of torch, and operators that it leaves out
    **flop_registry,
    _aten.mv: _of_vectors,
    _aten.dot: _of_vectors,
    _aten.vdot: _of_vectors,
    _aten.addmv: _of_added_vectors,
    _aten.addmv_: _of_added_vectors,
    _aten.addmm_: flop_registry[_aten.addmm],
    _aten.baddbmm_: flop_registry[_aten.baddbmm],
    _aten.linear: _of_linear,
    _aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
    _aten.mkldnn_rnn_layer: _of_layer,
    _aten.mkldnn_rnn_layer_backward: _twice(_of_layer),
    _aten._cudnn_rnn: _of_layers,
    _aten._cudnn_rnn_backward: _twice(_of_layers),
}
_SPACES = {
    "aten",
    "prim",
    "prims",
    "profiler",
    "c10d",
    "_c10d_functional",
    "fsdp",
}  # what has a formula, or no products
_SHAPES = {  # of tensors that make up their own, which know them
    *(
        "sym_is_contiguous",
        "is_contiguous",
        "is_strides_like_format",
        "is_non_overlapping_and_dense",
        "size",
        "sym_size",
    ),
    *("stride", "sym_stride", "storage_offset", "sym_storage_offset", "numel", "sym_numel", "dim", "layout"),
}


_CLOSURE = "a closure of an optimizer"


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of what torch computes in its blocks; it may be entered again and again.

    Products of matrices, convolutions, attention and recurrent layers count, by the formulas of
    `torch.utils.flop_counter` and a few more: a multiplication and an addition are two operations. Every operator is
    called as it would be without this mode.

    Attributes:
        flops: The operations so far.
        uncounted: Names of operators that have products but no formula: ``flops`` is too small with them.
        is_paused: Whether an optimizer steps now, of which nothing counts; a model that its closure computes is noted
            in ``uncounted``.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.uncounted: set[str] = set()
        self.is_paused = False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Return true: ``torch.compile`` compiles as without this mode, where it would otherwise never do so again."""
        return True

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if has_compiled():
            self.uncounted.add("torch.compile")  # whose kernels are no operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            self.uncounted.add(str(func))
            return NotImplemented
        packet = func._overloadpacket
        if packet.__name__ in _SHAPES:
            return NotImplemented
        output = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(packet)
        if self.is_paused:
            if formula is not None and torch.is_grad_enabled():
                self.uncounted.add(_CLOSURE)
            return output
        name = f"{func.namespace}.{packet.__name__}"
        if formula is None:
            if func.namespace not in _SPACES or packet.__name__ in PRODUCTS:
                self.uncounted.add(name)
            return output
        try:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=output))
        except Exception:  # the formula's, which must not end a training
            self.uncounted.add(name)
        return output


def can_count() -> bool:
    """Return whether this version of torch has modes that leave compiled code as it is."""
    return hasattr(TorchDispatchMode, "ignore_compile_internals")


def has_compiled() -> bool:
    """Return whether ``torch.compile`` has compiled anything in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and sum(dynamo.counters["frames"].values()) > 0


def size_of(batch: Any) -> tuple[int, int | None]:
    """Return the samples of a batch and, where its first tensor holds whole numbers in rows, its tokens."""
    first = first_tensor(batch)
    if first is None or not first.ndim:
        return 1, None
    is_text = first.ndim == 2 and not first.is_floating_point() and first.dtype != torch.bool
    return len(first), first.numel() if is_text else None


def first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in nested lists, tuples and dicts, or None."""
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((found for item in items if (found := first_tensor(item)) is not None), None)
