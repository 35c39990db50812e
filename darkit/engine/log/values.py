"""Which values can be logged: one number each, that a float can hold."""

from __future__ import annotations

import numbers
from decimal import Decimal
from typing import Any

import numpy
from torch import Tensor

from darkit.errors import LogError

_LARGEST = int(numpy.finfo(float).max)


def number_of(name: str, value: Any) -> Any:
    """Returns a value as a number or a tensor without dimensions, or None where it is no single number.

    Args:
        name: The name of the value, for errors.
        value: Anything; a tensor or an array of one element is a number, whatever its dimensions.

    Raises:
        LogError: It is a complex number, or one that is too large for a float.
    """
    if type(value) is float:
        return value
    if isinstance(value, Tensor):
        if value.numel() != 1:
            return None
        if value.is_complex():
            raise LogError(f"The log takes real numbers: {name!r} is complex ({_short(value.item())}).")
        return value.reshape(()) if value.ndim else value
    if isinstance(value, numpy.ndarray | numpy.generic):
        if value.size != 1 or value.dtype.kind not in "biufc":
            return None
        value = value.astype(float).item() if value.dtype.kind == "f" else value.item()
    if isinstance(value, complex):
        raise LogError(f"The log takes real numbers: {name!r} is complex ({_short(value)}).")
    if isinstance(value, float | bool):
        return float(value) if isinstance(value, float) else value
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise LogError(f"The log takes numbers of at most 1.8e308: {name!r} is {_short(value)}.")
        return int(value)
    return float(value) if isinstance(value, numbers.Real | Decimal) else None


def _short(value: Any) -> str:
    if isinstance(value, int):
        return f"a whole number of {value.bit_length()} bits"
    return str(value)
