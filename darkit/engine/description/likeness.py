"""Comparison of two modules, or any two values, by everything visible."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from darkit.engine.checkpoints.snapshot import plain_number
from darkit.engine.lightning import own_attributes

_OF_MODULES = frozenset(
    ("training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook")
)
_MARKS = frozenset(("_is_accelerate_prepared",))  # set by a trainer, without a meaning for the function
_CACHES_OF_RNNS = frozenset(("_flat_weights", "_flat_weight_refs"))  # those of a deep copy refer to the original
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: what a class statement makes
_FUNCTIONS = (types.FunctionType, types.LambdaType)
_SCALARS = (bool, int, float, complex, str, bytes, type(None), type, types.BuiltinFunctionType, types.ModuleType)
_COMPARED = (PurePath, Enum, Decimal, date, time, timedelta)
_Seen = dict[tuple[int, int], tuple[Any, Any]]  # by ids; keeping the values keeps the ids valid


def are_alike(one: Any, other: Any) -> bool:
    """Return whether two values are alike; opaque objects are not.

    Modules are compared by all attributes, recursively, and by non-persistent buffers; parameters and other buffers by
    shape. Functions are compared by code, defaults and closure.
    """
    seen: _Seen = {}
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):  # attributes may hold parameters, as in an LSTM
        others = dict(other.named_parameters())
        pairs = ((part, others[name]) for name, part in one.named_parameters() if name in others)
        seen = {(id(a), id(b)): (a, b) for a, b in pairs}
    return _alike(one, other, seen)


def _alike(one: Any, other: Any, seen: _Seen) -> bool:
    if one is other:
        return True
    one, other = plain_number(one), plain_number(other)
    if isinstance(one, _SCALARS):
        return type(one) is type(other) and bool(one == other or (one != one and other != other))
    if (id(one), id(other)) in seen:
        return True
    seen[id(one), id(other)] = one, other
    if isinstance(one, Tensor | numpy.ndarray):
        return type(one) is type(other) and _same_numbers(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, nn.Module):
        return _alike_modules(one, other, seen)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(_alike(one[key], other[key], seen) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_alike(a, b, seen) for a, b in zip(one, other, strict=True))
    if isinstance(one, set | frozenset | range | torch.dtype | torch.device):
        return bool(one == other)
    if isinstance(one, _FUNCTIONS):
        return _alike_functions(one, other, seen)
    if isinstance(one, types.MethodType):
        return one.__func__ is other.__func__ and _alike(one.__self__, other.__self__, seen)
    if isinstance(one, weakref.ref):
        return _alike(one(), other(), seen)
    if isinstance(one, functools.partial):
        mine, others = ((part.func, part.args, part.keywords) for part in (one, other))
        return _alike(mine, others, seen)
    return _alike_objects(one, other, seen)


def _same_numbers(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if isinstance(one, numpy.ndarray):
        return bool(numpy.array_equal(one, other))
    if one.is_meta or other.is_meta or one.layout is not other.layout:
        return False
    return bool(torch.equal(one.detach().cpu().to_dense(), other.detach().cpu().to_dense()))


def _alike_modules(one: nn.Module, other: nn.Module, seen: _Seen) -> bool:
    hidden = one._non_persistent_buffers_set
    if hidden != other._non_persistent_buffers_set or list(one._modules) != list(other._modules):
        return False
    mine, others = ({**part._parameters, **part._buffers} for part in (one, other))
    if list(mine) != list(others):
        return False
    for name, value in mine.items():
        if name in hidden:
            if not _alike(value, others[name], seen):
                return False
        elif shape_of(value) != shape_of(others[name]):
            return False
    if not all(_alike(child, other._modules[name], seen) for name, child in one._modules.items()):
        return False
    left_out = _OF_MODULES | _MARKS | own_attributes(one)
    if isinstance(one, nn.RNNBase):
        left_out |= _CACHES_OF_RNNS
    own, its = ({key: value for key, value in vars(part).items() if key not in left_out} for part in (one, other))
    if "hparams" not in its:  # added after the constructor
        own.pop("hparams", None)
    return _alike(own, its, seen)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor; None for a lazy one or any other value."""
    return tuple(value.shape) if isinstance(value, Tensor) and not is_lazy(value) else None


def _alike_functions(one: Any, other: Any, seen: _Seen) -> bool:
    if one.__code__ is not other.__code__ and one.__code__ != other.__code__:
        return False
    mine, others = (
        ([cell.cell_contents for cell in function.__closure__ or ()], function.__defaults__, function.__kwdefaults__)
        for function in (one, other)
    )
    return one.__globals__ is other.__globals__ and _alike(mine, others, seen)


def _alike_objects(one: Any, other: Any, seen: _Seen) -> bool:
    """Compare instances of Python classes by their attributes; the state of others is hidden."""
    if isinstance(one, _COMPARED):
        return bool(one == other)
    if any(base is not object and not base.__flags__ & _HEAP_TYPE for base in type(one).__mro__):
        return False
    if not (hasattr(one, "__dict__") and hasattr(other, "__dict__")):
        return False
    return _alike(vars(one), vars(other), seen)
