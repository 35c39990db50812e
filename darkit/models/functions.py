"""Parts of the language models with a backward pass of their own, for training on a CPU.

Each computes what the named function of torch does, with fewer passes over memory: torch composes the root-mean-square
norm and the rotation of pointwise operations, of which autograd runs each backwards alone, and its cross-entropy makes
three more tensors as large as the logits. On other devices, in other precisions and in compiled models torch has
kernels of its own: see `has_own_backward`.

Shapes: N tokens, B batch, T time, C channels, V vocabulary, H and G heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100
"""The target that the losses of torch ignore."""
_TYPES = (torch.float32, torch.float64)
_ROWS = 128  # rows of logits that fit into a core's cache together


def has_own_backward(values: Tensor) -> bool:
    """Return whether the functions of this module are the faster ones for values like these."""
    return (
        values.device.type == "cpu"
        and values.dtype in _TYPES
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
    )


def is_plain(layer: nn.Module, *, biased: bool = False) -> bool:
    """Return whether a layer is `torch.nn.Linear` itself, without hooks, so that its weight says all that it does.

    Args:
        layer: The layer.
        biased: Whether it may have a bias.
    """
    if type(layer) is not nn.Linear or "forward" in layer.__dict__:
        return False
    if nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return False
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    if type(weight) not in (Tensor, nn.Parameter) or (bias is not None and not biased):  # quantized ones are others
        return False
    return not any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks))


def _differentiated_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse ``create_graph``: autograd does not see what a backward pass computes, and would ignore it silently."""

    @wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("The gradients of this model on a CPU cannot be differentiated again (create_graph).")
        return backward(ctx, *gradients)

    return checked


def rms_norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide values (..., C) by their root mean square and multiply them by a weight (C), as `F.rms_norm`."""
    normed: Tensor = _RMSNorm.apply(values, weight, eps)  # type: ignore[no-untyped-call]
    return normed


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = values.shape[-1]
        norms = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        scales = norms.square_().div_(size).add_(eps).rsqrt_()
        normed: Tensor = values * scales
        ctx.save_for_backward(normed, scales, weight)
        return normed * weight

    @staticmethod
    @_differentiated_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normed, scales, weight = ctx.saved_tensors
        size = weight.shape[0]
        products = (gradient * normed).view(-1, size)
        along = torch.mv(products, weight).div_(size).view_as(scales)
        values = (gradient * weight).addcmul_(normed, along, value=-1).mul_(scales)
        return values, products.sum(0), None


def as_pairs(weight: Tensor, size: int) -> Tensor:
    """Order the rows (H D) of a projection so that `split_rotated` finds the pairs of each head side by side."""
    return weight.view(-1, 2, size // 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def split_rotated(projected: Tensor, heads: int, groups: int, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split queries, keys and values, and rotate the first two, in one pass: a rotation is a complex product.

    Args:
        projected: Queries, keys and values side by side (B, T, H + 2 G, D), the first two in the order of `as_pairs`.
        heads: Heads of the queries, H.
        groups: Heads of the keys and of the values, G.
        rotations: Complex numbers (T, D / 2) with the angles of each position and pair.

    Returns:
        Queries (B, H, T, D), keys (B, G, T, D) and values (B, G, T, D); the order of the first two stays.
    """
    query, key, value = _SplitRotated.apply(projected, heads, groups, rotations)  # type: ignore[no-untyped-call]
    return query, key, value


class _SplitRotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, heads: int, groups: int, rotations: Tensor) -> tuple[Tensor, ...]:
        rotations = rotations[:, None]
        ctx.save_for_backward(rotations)
        ctx.shape, ctx.sizes = projected.shape, (heads, groups, groups)
        turned = projected.new_empty(projected.shape)
        last = heads + groups
        torch.mul(_as_complex(projected[:, :, :last]), rotations, out=_complex(turned[:, :, :last]))
        turned[:, :, last:] = projected[:, :, last:]
        return tuple(part.transpose(1, 2) for part in torch.split(turned, ctx.sizes, dim=2))

    @staticmethod
    @_differentiated_once
    def backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor | None, ...]:
        (rotations,) = ctx.saved_tensors
        back = rotations.conj().resolve_conj()
        projected = query.new_empty(ctx.shape)
        queries, keys, values = torch.split(projected, ctx.sizes, dim=2)
        torch.mul(_as_complex(query.transpose(1, 2)), back, out=_complex(queries))
        torch.mul(_as_complex(key.transpose(1, 2)), back, out=_complex(keys))
        values.copy_(value.transpose(1, 2))
        return projected, None, None, None


def _as_complex(vectors: Tensor) -> Tensor:
    """Return vectors (..., D) of any layout as complex numbers (..., D / 2); a gradient may have any."""
    *outer, last = vectors.stride()
    fits = last == 1 and not any(stride % 2 for stride in outer) and not vectors.storage_offset() % 2
    return _complex(vectors if fits else vectors.contiguous())


def _complex(vectors: Tensor) -> Tensor:
    """Return a view of vectors (..., D) as complex numbers (..., D / 2)."""
    return torch.view_as_complex(torch.unflatten(vectors, -1, (-1, 2)))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of logits (N, V) and targets (N) other than -100, as `F.cross_entropy`."""
    needs_gradient = torch.is_grad_enabled() and logits.requires_grad
    if not needs_gradient or not has_own_backward(logits) or not _are_within(targets, logits.shape[1]):
        return F.cross_entropy(logits, targets)
    loss: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return loss


def _are_within(targets: Tensor, size: int) -> bool:
    """Return whether there is a target, and none that torch would refuse."""
    counted = targets[targets != IGNORED]
    return bool(len(counted)) and int(counted.min()) >= 0 and int(counted.max()) < size


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        counted = (targets != IGNORED)[:, None]
        count = int(counted.sum())
        gradients = torch.empty_like(logits)
        largest, shares = (logits.new_empty(len(logits), 1) for _ in range(2))
        for first in range(0, len(logits), _ROWS):
            rows = slice(first, first + _ROWS)
            torch.softmax(logits[rows], dim=-1, out=gradients[rows])
            torch.amax(logits[rows], dim=-1, keepdim=True, out=largest[rows])
            torch.amax(gradients[rows], dim=-1, keepdim=True, out=shares[rows])
            gradients[rows].div_(count)
        places = targets.clamp(min=0)[:, None]
        losses = largest - shares.log() - logits.gather(1, places)
        gradients.scatter_add_(1, places, gradients.new_full((), -1 / count).expand_as(places))
        if count < len(targets):
            losses.masked_fill_(~counted, 0)
            gradients.masked_fill_(~counted, 0)
        ctx.save_for_backward(gradients)
        return losses.sum() / count

    @staticmethod
    @_differentiated_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return gradients if float(gradient) == 1 else gradients * gradient, None
