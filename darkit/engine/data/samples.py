"""Number of samples and targets in a batch, as far as its structure shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from darkit.errors import DataError

IGNORED = -100
"""The label of positions without a target, as in torch and transformers."""
_NO_BATCH = (  # torch's messages for samples that it cannot collate
    "stack expects each tensor to be equal size",
    "each element in list of batch should be of equal size",
    "default_collate: batch must contain",
    "Trying to resize storage that is not resizable",  # the first of these, in a worker
)
_COUNTS = ("num_graphs", "batch_size")  # attributes of graph libraries and TensorDict
_SHIFTED = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel")  # transformers' classes that predict labels[..., 1:]


def count_samples(batch: Any) -> int | None:
    """Count the samples of a batch.

    Args:
        batch: A tensor, an array, or nested mappings, tuples, lists, dataclasses and objects of them. A list of
            mappings or objects has one per sample; a batch of graphs has one sample per graph.

    Returns:
        The number, or None if it is unknown or the parts of the batch disagree.
    """
    if (graphs := _graphs(batch)) is not None:
        return graphs
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, Tensor | numpy.ndarray):
        return int(batch.shape[0]) if batch.ndim else None
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        if batch and all(_is_sample(part) for part in batch):
            return len(batch)
        return _agreed(batch)
    fields = _fields(batch)
    return None if fields is None else _agreed(fields)


def count_targets(batch: Any, model: Any) -> Tensor | None:
    """Count the token labels that are not -100; without the first one if the model shifts them."""
    is_row = isinstance(batch, tuple | list) and len(batch) > 1
    labels = batch.get("labels") if isinstance(batch, Mapping) else batch[-1] if is_row else None
    if not isinstance(labels, Tensor) or labels.ndim < 2 or labels.is_floating_point() or labels.is_complex():
        return None
    if isinstance(batch, Mapping) and type(model).__name__.endswith(_SHIFTED):
        labels = labels[..., 1:]
    return (labels != IGNORED).sum()


def _graphs(batch: Any) -> int | None:
    if isinstance(batch, Tensor | numpy.ndarray | str | int | float):
        return None
    for name in _COUNTS:
        value = _part(batch, name)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    pointers = _part(batch, "ptr")
    if isinstance(pointers, Tensor) and pointers.ndim == 1 and len(pointers):
        return len(pointers) - 1
    edges, owners = _part(batch, "edge_index"), _part(batch, "batch")
    if isinstance(edges, Tensor) and isinstance(owners, Tensor) and owners.ndim == 1 and len(owners):
        return int(owners.max()) + 1
    return None


def _part(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)


def _is_sample(part: Any) -> bool:
    return isinstance(part, Mapping | str | bytes | int | float) or (
        not isinstance(part, Tensor | numpy.ndarray | list | tuple) and _fields(part) is not None
    )


def _fields(batch: Any) -> list[Any] | None:
    if isinstance(batch, Mapping):
        return list(batch.values())
    if hasattr(batch, "_fields"):  # a named tuple
        return list(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return list(vars(batch).values()) if hasattr(batch, "__dict__") and not callable(batch) else None


def _agreed(parts: Any) -> int | None:
    found = {size for part in parts if (size := _size_of_field(part)) is not None}
    return found.pop() if len(found) == 1 else None


def _size_of_field(part: Any) -> int | None:
    if isinstance(part, str | bytes):
        return None
    if isinstance(part, list | tuple) and not hasattr(part, "_fields") and part:
        tensors = [item for item in part if isinstance(item, Tensor | numpy.ndarray)]
        if len(tensors) == len(part) and len({tensor.shape[:1] for tensor in tensors}) > 1:
            return len(part)  # tensors of different lengths: one for each sample
    return count_samples(part)


def describe(batch: Any) -> str:
    """Describe the shapes and dtypes of a batch, such as ``(float32[4, 12], int64[4])``."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')}{list(batch.shape)}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{_on_one_line(key)}: {describe(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, tuple | list) and len(batch) <= 16:
        return "(" + ", ".join(describe(value) for value in batch) + ")"
    return type(batch).__name__


def describe_parts(sample: Any) -> Any:
    """Describe a sample as data: a tensor by ``dtype`` and ``shape``, a mapping by ``fields``, a sequence as a list."""
    if isinstance(sample, Tensor):
        return {"dtype": str(sample.dtype).removeprefix("torch."), "shape": list(sample.shape)}
    if isinstance(sample, Mapping):
        return {"fields": {_on_one_line(key): describe_parts(value) for key, value in sample.items()}}
    if isinstance(sample, tuple | list) and len(sample) <= 16:
        return [describe_parts(value) for value in sample]
    return {"type": type(sample).__name__}


def _on_one_line(key: Any) -> str:
    return text if (text := str(key)).isprintable() else repr(text)


@contextmanager
def collating(purpose: str) -> Iterator[None]:
    """Report samples that torch cannot collate, in this process or in a worker, while a loader is read.

    Raises:
        DataError: The ``training`` or ``validation`` samples cannot be collated.
    """
    try:
        yield
    except (RuntimeError, TypeError) as error:
        text = str(error).strip().rpartition("\n")[2]
        if not any(words in text for words in _NO_BATCH):
            raise
        raise DataError(
            f"The {purpose} samples cannot be collated into a batch ({text.rstrip('.')}): use samples of equal shape "
            "and type, or give the dataset or the DataLoader a collate_fn that pads them."
        ) from error
