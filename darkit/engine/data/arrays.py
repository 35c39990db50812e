"""Arrays and tensors as datasets: a single one, a tuple, or a dict of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from darkit.errors import DataError


class Rows(Dataset[Any]):
    """The rows of one tensor, or of several by name.

    Args:
        columns: A tensor of shape (samples, ...), or a dict of such tensors of one length.
    """

    def __init__(self, columns: Tensor | dict[str, Tensor]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns if isinstance(self.columns, Tensor) else next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.columns, Tensor):
            return self.columns[index]
        return {name: column[index] for name, column in self.columns.items()}


def holds_arrays(data: Any) -> bool:
    """Return whether data is an array or a tensor, or a tuple or dict of only these."""
    if isinstance(data, Mapping):
        return bool(data) and all(isinstance(item, Tensor | numpy.ndarray) for item in data.values())
    if isinstance(data, tuple) and not hasattr(data, "_fields"):
        return bool(data) and all(isinstance(item, Tensor | numpy.ndarray) for item in data)
    return isinstance(data, Tensor | numpy.ndarray)


def as_dataset(data: Any, purpose: str) -> Dataset[Any]:
    """Make a dataset of data for which `holds_arrays` is true.

    float64 arrays get torch's default dtype, since float64 is NumPy's default; other dtypes stay.

    Args:
        data: An array, or a tuple or a dict of arrays, each of shape (samples, ...).
        purpose: ``training`` or ``validation``, for errors.

    Raises:
        DataError: The arrays differ in length, or torch has no such dtype.
    """
    names = [str(name) for name in data] if isinstance(data, Mapping) else []
    items = data.values() if isinstance(data, Mapping) else data if isinstance(data, tuple) else [data]
    tensors = [_tensor(item, purpose) for item in items]
    lengths = {len(item) if item.ndim else 0 for item in tensors}
    if len(lengths) > 1:
        raise DataError(f"The tensors of the {purpose} data must have the same length, but have {sorted(lengths)}.")
    if any(not item.ndim for item in tensors):
        raise DataError(f"The {purpose} data must have samples in its first dimension, but is a single number.")
    if names:
        return Rows(dict(zip(names, tensors, strict=True)))
    return TensorDataset(*tensors) if isinstance(data, tuple) else Rows(tensors[0])


def _tensor(item: Tensor | numpy.ndarray[Any, Any], purpose: str) -> Tensor:
    if isinstance(item, Tensor):
        return item
    if isinstance(item, numpy.ma.MaskedArray):
        raise DataError(f"The {purpose} data has a masked array, whose mask would be lost: fill it or remove the rows.")
    array = numpy.asarray(item, dtype=item.dtype.newbyteorder("="), order="C")
    try:
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError as error:
        raise DataError(
            f"The {purpose} data has an array of dtype {item.dtype}, which torch does not support."
        ) from error
    return tensor.to(torch.get_default_dtype()) if array.dtype == numpy.float64 else tensor
