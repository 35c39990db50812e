"""Conversion of values for the log: single numbers in the range of a float."""

from __future__ import annotations

import numbers
from decimal import Decimal
from typing import Any

import numpy
from torch import Tensor

from darkit.errors import LogError

_LARGEST = int(numpy.finfo(float).max)


def number_of(name: str, value: Any) -> Any:
    """Convert a value to a number or a scalar tensor; None if it is not a single number.

    Args:
        name: The name of the value, for errors.
        value: Any value; a tensor or array with one element counts as a number.

    Raises:
        LogError: The number is complex or too large for a float.
    """
    if type(value) is float:
        return value
    if isinstance(value, Tensor):
        if value.numel() != 1:
            return None
        if value.is_complex():
            raise LogError(f"The log takes only real numbers, but {name!r} is complex ({_short(value.item())}).")
        return value.reshape(()) if value.ndim else value
    if isinstance(value, numpy.ndarray | numpy.generic):
        if value.size != 1 or value.dtype.kind not in "biufc":
            return None
        value = value.astype(float).item() if value.dtype.kind == "f" else value.item()
    if isinstance(value, complex):
        raise LogError(f"The log takes only real numbers, but {name!r} is complex ({_short(value)}).")
    if isinstance(value, float | bool):
        return float(value) if isinstance(value, float) else value
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise LogError(f"The log takes numbers up to 1.8e308, but {name!r} is {_short(value)}.")
        return int(value)
    return float(value) if isinstance(value, numbers.Real | Decimal) else None


def snapshot(name: str, value: Any) -> Any:
    """Convert a value as `number_of` does, to what it is now, without waiting for an accelerator.

    A tensor in host memory is read, in a tenth of the time of a copy. One on an accelerator is copied there, in the
    order of its other work, and is read later.
    """
    number = number_of(name, value)
    if not isinstance(number, Tensor):
        return number
    return number.tolist() if _is_in_host_memory(number) else number.detach().clone()


def _is_in_host_memory(value: Tensor) -> bool:
    return value.is_cpu


def _short(value: Any) -> str:
    if isinstance(value, int):
        return f"an integer of {value.bit_length()} bits"
    return str(value)
