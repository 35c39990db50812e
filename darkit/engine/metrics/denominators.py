"""The denominators of losses and metrics, observed while these are computed.

A mean of means is correct only if each is weighted by its denominator: the number of samples, target tokens or pixels.
The batch does not show that number: it depends on ``ignore_index``, class weights, masks and on what a model shifts or
drops. So torch functions that reduce to a scalar are observed, and later operations on the scalar are followed.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, overrides
from torch.overrides import TorchFunctionMode

Weight = float | Tensor
"""The weight of a mean: a number, or a scalar tensor on an accelerator, to avoid synchronisation."""


@dataclass(frozen=True)
class _Mean:
    """A mean over ``weight`` items, or the sum of ``terms`` such means.

    ``divided`` marks the quotient of a sum, which may be divided again; ``safe`` a mean whose gradient over no items is
    zero, not nan.
    """

    weight: Weight
    divided: bool = False
    terms: int = 1
    safe: bool = False

    def averaged(self) -> _Mean:
        """Return the mean of the terms."""
        return _Mean(self.weight * self.terms, safe=self.safe) if self.terms > 1 else self


# a sum over a batch; a value of the model's weights alone; a nonlinear function of a mean or a sum
_SUM, _CONSTANT, _NONLINEAR = (object(), object(), object())


class Denominators(TorchFunctionMode):
    """Observe the computations in a block. Results are valid until the block is entered again."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, tuple[Any, Any]] = {}  # by id; keeping the value keeps the id valid
        self._counts: dict[Any, Weight] = {}
        self._counted: list[tuple[Tensor, Tensor | None]] = []

    def note(self, value: Any, kind: Any) -> None:
        """Note what a value is, as a rule says; None if it is not known."""
        if kind is not None:
            self._found[id(value)] = (value, kind)

    def weight_of(self, value: Any) -> Weight | None:
        """Return the denominator of a value, or None if unknown."""
        found = self._of(value)
        return found.weight if isinstance(found, _Mean) else None

    def is_safe(self, value: Any) -> bool:
        """Return whether a value is a mean whose gradient over no items is zero and not nan."""
        found = self._of(value)
        return isinstance(found, _Mean) and found.safe

    def is_sum(self, value: Any) -> bool:
        """Return whether a value is a sum over the batch."""
        return self._of(value) is _SUM

    def is_nonlinear(self, value: Any) -> bool:
        """Return whether a value is a nonlinear function of a mean or a sum, such as a root."""
        return self._of(value) is _NONLINEAR

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.l1_loss and "weight" not in kwargs and len(args) < 6:  # torch 2.13 drops it in the dispatch
            kwargs = {**kwargs, "weight": _third_argument(sys._getframe(1))}
        result = func(*args, **kwargs)
        rule = _RULES.get(func)
        if rule is not None:
            found = rule(self, args, kwargs, result)
            if found is not None:
                self._found[id(result)] = (result, found)
                return result
        self._found.pop(id(result), None)  # changed in place by an unknown function
        return result

    def _of(self, value: Any) -> Any:
        entry = self._found.get(id(value))
        if entry is not None and entry[0] is value:
            return entry[1]
        return _CONSTANT if isinstance(value, nn.Parameter | int | float) else None

    def _count(self, target: Tensor, ignored: int, weight: Tensor | None) -> Weight:
        """Count the targets that are not ignored; equal targets give the same object."""
        key = (target.data_ptr(), target.numel(), target._version, ignored, id(weight))
        if key not in self._counts:
            self._counted.append((target, weight))  # so that their memory and ids stay their own
            asked = target != ignored
            self._counts[key] = _light(asked.sum() if weight is None else weight[target[asked]].sum())
        return self._counts[key]


class ObservedLoss:
    """A loss of torch's own, called with outputs and target, which alone show its denominator.

    Only this call is observed, and not the computations of the model, which costs more than a small model itself.

    Args:
        loss: The loss; see `observed_loss`.

    Attributes:
        seen: What observes the next call; None if nothing does.
    """

    def __init__(self, loss: Callable[..., Any]) -> None:
        self.seen: Denominators | None = None
        self._loss = loss
        self._rule = None if isinstance(loss, nn.Module) else _RULES[loss]

    def __call__(self, outputs: Any, target: Any) -> Any:
        """Compute the loss."""
        if self.seen is None:
            return self._loss(outputs, target)
        if self._rule is None:  # its settings are arguments of the function that it calls
            with self.seen:
                return self._loss(outputs, target)
        result = self._loss(outputs, target)
        self.seen.note(result, self._rule(self.seen, (outputs, target), {}, result))
        return result


def observed_loss(loss: Any) -> ObservedLoss | None:
    """Return a loss whose own call is enough to observe: a function or module of torch's, else None."""
    if isinstance(loss, nn.Module):
        return ObservedLoss(loss) if type(loss).__module__ == nn.modules.loss.__name__ else None
    rule = _RULES.get(loss) if inspect.isfunction(loss) else None
    return ObservedLoss(loss) if isinstance(rule, partial) and rule.func is _loss else None


def unobserved(call: Callable[..., Any]) -> Callable[..., Any]:
    """Hide the observation from a compiled function, which would otherwise be compiled with and without it."""

    def called(*args: Any, **kwargs: Any) -> Any:
        if not isinstance(overrides._get_current_function_mode(), Denominators):  # type: ignore[no-untyped-call]
            return call(*args, **kwargs)
        with overrides._pop_mode_temporarily():
            return call(*args, **kwargs)

    called.is_unobserved = True  # type: ignore[attr-defined]
    return called


def can_be_observed(model: nn.Module) -> bool:
    """Return whether all compiled parts of a model are wrapped by `unobserved`."""
    calls = [part.__dict__.get("_compiled_call_impl") for part in model.modules()]
    if any(call is not None and not hasattr(call, "is_unobserved") for call in calls):
        return False
    return not any(type(part).__name__ == "OptimizedModule" for part in model.modules())


def _third_argument(frame: Any) -> Any:
    relevant = frame.f_locals.get("relevant_args", ())
    return relevant[2] if len(relevant) > 2 else None


def _light(weight: Any) -> Weight:
    """Convert to a number on the CPU; keep a tensor on an accelerator."""
    if not isinstance(weight, Tensor):
        return float(weight)
    weight = weight.detach()
    return float(weight.item()) if weight.device.type == "cpu" else weight.reshape(())


def _same(one: Weight, other: Weight) -> bool:
    return one is other or (not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other)


def _is_one(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


@cache
def _names(func: Any) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return tuple(inspect.signature(func).parameters)


def _loss(func: Any, seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    given = {**dict(zip(_names(func), args, strict=False)), **kwargs}
    reduction = given.get("reduction", "mean")
    if given.get("size_average") is not None or given.get("reduce") is not None:
        reduction = nn._reduction.legacy_get_string(given.get("size_average"), given.get("reduce"), emit_warning=False)
    if reduction == "sum":
        return _SUM
    if reduction == "none" or not _is_one(result):
        return None
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    target = given.get("target")
    if func in _OF_CLASSES and isinstance(target, Tensor) and not target.is_floating_point():
        weight = given.get("weight")
        return _Mean(seen._count(target, given.get("ignore_index", -100), weight), safe=weight is None)
    if func is F.ctc_loss:
        return _Mean(float(given["log_probs"].shape[1] if given["log_probs"].ndim == 3 else 1))
    if func in _OF_CLASSES or func in _OF_SAMPLES or reduction == "batchmean":
        return _Mean(float(tensors[0].shape[0]))
    if func in _DIVIDED_BY_WEIGHTS and isinstance(given.get("weight"), Tensor):
        return _Mean(_light(given["weight"].sum()))
    shape: Any = tensors[0].shape
    if len(tensors) > 1 and tensors[1].shape != shape:
        shape = torch.broadcast_shapes(shape, tensors[1].shape)  # type: ignore[no-untyped-call]
    return _Mean(float(math.prod(shape)))


def _mean(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    value = args[0] if args else kwargs.get("input")
    found = seen._of(value)
    if found is not None:
        return found.averaged() if isinstance(found, _Mean) else None if found is _SUM else found
    if not isinstance(value, Tensor):
        return None
    if result.ndim == 0:
        return _Mean(float(value.numel()))
    return _Mean(float(value.shape[0])) if _reduces_first(value, args, kwargs) else None


def _sum(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    value = args[0] if args else kwargs.get("input")
    found = seen._of(value)
    if found is not None:
        return found
    return _SUM if result.ndim == 0 or _reduces_first(value, args, kwargs) else None


def _reduces_first(value: Tensor, args: Any, kwargs: Any) -> bool:
    wanted = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    dims = wanted if isinstance(wanted, tuple | list) else (wanted,)
    return value.ndim > 0 and any(dim in (0, -value.ndim) for dim in dims)


def _keep(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    return seen._of(args[0]) if args else None


def _of_constants(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    if not args or not all(seen._of(value) is _CONSTANT for value in args[1:]):
        return None
    found = seen._of(args[0])
    return found if found is None or found is _CONSTANT else _NONLINEAR


def _add(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    found = [seen._of(value) for value in args[:2]]
    return _joined(found) if len(found) == 2 else None


def _joined(found: list[Any]) -> Any:
    """Return the kind of a sum of several values."""
    varying = [one for one in found if one is not _CONSTANT]
    if not varying:
        return _CONSTANT
    if all(one is _SUM for one in varying):
        return _SUM if len(varying) == len(found) else None
    if not all(isinstance(one, _Mean) for one in varying):
        return None
    first = varying[0].weight
    same = all(_same(one.weight, first) for one in varying)
    terms, safe = sum(one.terms for one in varying), all(one.safe for one in varying)
    return _Mean(first, terms=terms, safe=safe) if same else None


def _mul(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    if any(isinstance(value, int | float) and value == 0 for value in args):
        return _CONSTANT
    found = [seen._of(value) for value in args[:2]]
    varying = [one for one in found if one is not _CONSTANT]
    if not varying:
        return _CONSTANT
    return varying[0] if len(varying) == 1 else None


def _div(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    if len(args) < 2 or kwargs.get("rounding_mode") is not None:
        return None
    found, by = seen._of(args[0]), args[1]
    if not _is_one(by) and not isinstance(by, int | float):
        return None
    if found is _SUM or (isinstance(found, _Mean) and found.divided):
        weight = _light(by.detach().abs() if isinstance(by, Tensor) else abs(by))
        return _Mean(found.weight * weight if isinstance(found, _Mean) else weight, divided=True)
    if isinstance(found, _Mean) and found.terms > 1 and isinstance(by, int | float) and by == found.terms:
        return found.averaged()
    return found if seen._of(by) is _CONSTANT else None


def _stack(seen: Denominators, args: Any, kwargs: Any, result: Any) -> Any:
    parts = args[0] if args else kwargs.get("tensors")
    return _joined([seen._of(part) for part in parts]) if isinstance(parts, tuple | list) and parts else None


_OF_CLASSES = {F.cross_entropy, F.nll_loss}
_DIVIDED_BY_WEIGHTS = {F.l1_loss, F.mse_loss}  # by the sum of weight=, unlike huber_loss and binary_cross_entropy
_OF_SAMPLES = {
    F.triplet_margin_loss,
    F.triplet_margin_with_distance_loss,
    F.cosine_embedding_loss,
    F.multi_margin_loss,
    F.multilabel_margin_loss,
    F.multilabel_soft_margin_loss,
}
_BY_NAME: dict[Callable[..., Any], str] = {
    _mean: "mean",
    _sum: "sum",
    _keep: "detach detach_ clone contiguous float double half bfloat16 to cpu cuda type_as reshape view squeeze "
    "unsqueeze flatten neg negative __neg__ item __float__ requires_grad_ positive neg_ squeeze_ tolist",
    _of_constants: "pow square abs exp log sqrt norm vector_norm linalg_vector_norm softplus sigmoid __pow__",
    _add: "add sub add_ sub_ subtract __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ rsub",
    _mul: "mul mul_ multiply __mul__ __rmul__ __imul__",
    _div: "div div_ divide true_divide __truediv__ __itruediv__",
    _stack: "stack cat hstack concat",
}


def _rules() -> dict[Any, Callable[..., Any]]:
    rules: dict[Any, Callable[..., Any]] = {}
    for rule, names in _BY_NAME.items():
        for name in names.split():
            for owner in (Tensor, torch, torch.linalg):
                if callable(function := getattr(owner, name, None)):
                    rules[function] = rule
    for name, function in vars(F).items():
        if inspect.isfunction(function) and not name.startswith("_"):
            try:
                if "reduction" in inspect.signature(function).parameters:
                    rules[function] = partial(_loss, function)
            except (TypeError, ValueError):
                continue
    for function in (F.ctc_loss, *_OF_CLASSES, *_OF_SAMPLES):
        rules[function] = partial(_loss, function)
    return rules


_RULES = _rules()
