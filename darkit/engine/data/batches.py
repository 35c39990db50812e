"""Batches of map-style data that this process loads: the same as a DataLoader's, with less work for each.

Rows of tensors are taken with one operation per tensor and batch, instead of one per sample. Other samples are loaded
as torch's loader does, with ``__getitems__`` if the dataset has it, and put together by its ``collate_fn``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map

from darkit.engine.data.arrays import Rows
from darkit.engine.data.order import NO_END, RowSampler

Take = Callable[[Tensor], Any]
_TYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


class OwnBatches:
    """An iterator over the batches of a loader in darkit's order, from the order's place on.

    Args:
        batches: The indices of each batch.
        make: Makes a batch of them.
    """

    def __init__(self, batches: Iterator[Any], make: Callable[[Any], Any]) -> None:
        self._batches = batches
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        indices = next(self._batches)
        try:
            return self._make(indices)
        except StopIteration as error:  # whoever iterates would treat it as the end of the data
            raise RuntimeError(NO_END) from error


def own_batches(loader: Any) -> OwnBatches | None:
    """Return the batches of a loader that needs no DataLoader to make them, else None."""
    if type(loader) is not DataLoader or loader.num_workers or loader.pin_memory:
        return None
    order = loader.batch_sampler
    if not isinstance(order, RowSampler):
        return None
    plain = loader.collate_fn is default_collate and default_collate_fn_map.get(Tensor) is collate_tensor_fn
    if plain and (take := _taking(loader.dataset)) is not None:
        return OwnBatches(order.rows(), take)
    dataset, collate = loader.dataset, stack if plain else loader.collate_fn
    many = getattr(dataset, "__getitems__", None)
    if many:
        return OwnBatches(iter(order), lambda indices: collate(many(indices)))
    return OwnBatches(iter(order), lambda indices: collate([dataset[index] for index in indices]))


def stack(samples: list[Any]) -> Any:
    """Collate samples as `torch.utils.data.default_collate` does, and sooner if they are tensors or tuples of them."""
    kinds = set(map(type, samples))
    if kinds == {Tensor} and _is_dense(samples[0]):
        return torch.stack(samples)
    if kinds == {tuple}:
        try:
            columns = list(zip(*samples, strict=True))
        except ValueError:  # tuples of different lengths, which torch refuses
            return default_collate(samples)
        if columns and all(set(map(type, column)) == {Tensor} and _is_dense(column[0]) for column in columns):
            return [torch.stack(column) for column in columns]
    return default_collate(samples)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested


def _taking(dataset: Any) -> Take | None:
    """Return what takes the rows of a dataset that only holds tensors, collated; None for any other dataset."""
    if type(dataset) is TensorDataset:
        tensors = dataset.tensors
        return (lambda rows: [_rows(tensor, rows) for tensor in dataset.tensors]) if _are_plain(tensors) else None
    if type(dataset) is Rows:
        columns = dataset.columns
        if isinstance(columns, Tensor):
            return (lambda rows: _rows(columns, rows)) if _are_plain([columns]) else None
        if _are_plain(columns.values()):
            return lambda rows: {name: _rows(column, rows) for name, column in columns.items()}
    if type(dataset) is Subset and (take := _taking(dataset.dataset)) is not None:
        chosen = _indices(dataset.indices, len(dataset.dataset))  # type: ignore[arg-type]
        return None if chosen is None else lambda rows: take(_rows(chosen, rows))
    return None


def _indices(given: Any, size: int) -> Tensor | None:
    """Return the indices of a subset as a tensor; None if they are not plain numbers from 0 to below ``size``."""
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    if type(found) is not Tensor or found.dtype != torch.long or found.ndim != 1 or not len(found):
        return None
    return found if int(found.min()) >= 0 and int(found.max()) < size else None


def _are_plain(tensors: Iterable[Tensor]) -> bool:
    """Return whether rows taken at once are what torch makes of single rows, to the strides.

    The tensors must be dense, in host memory and without a gradient; of images in another memory format torch keeps it.
    """
    return all(
        type(tensor) is Tensor
        and tensor.is_cpu
        and tensor.dtype in _TYPES
        and _is_dense(tensor)
        and (tensor.ndim < 4 or tensor.is_contiguous())
        and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg())
        for tensor in tensors
    )


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor.index_select(0, rows)
