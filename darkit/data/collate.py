"""Batches of samples with different lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map  # documented there as the way to extend it

from darkit.errors import DataError

IGNORED = -100
"""The label of positions without a target; the losses of torch and transformers ignore it."""


class Pad:
    """Collate samples into a batch: pad rows (time) to one length and stack them, and stack numbers.

    In dicts, names that end in ``input_ids`` are padded with the padding token, ``labels`` with -100 and anything else
    with 0; ``input_ids`` get an ``attention_mask``. In tuples, the first is padded with the padding token and the
    others with -100.

    Args:
        pad: The padding token.
        length: The length to pad to, or for dicts one for each name; None takes that of the longest row of the batch.
        multiple_of: Round the length up to a multiple of this, which is faster on some accelerators.
        most: Limit of that rounding, such as the model's context.

    Raises:
        DataError: ``length`` or ``multiple_of`` is below 1.
    """

    def __init__(
        self,
        pad: int = 0,
        *,
        length: int | Mapping[str, int] | None = None,
        multiple_of: int = 1,
        most: int | None = None,
    ) -> None:
        lengths = length.values() if isinstance(length, Mapping) else [length]
        for name, value in [("multiple_of", multiple_of), *(("length", value) for value in lengths)]:
            if value is not None and value < 1:
                raise DataError(f"{name} must be at least 1, not {value}.")
        self.pad = pad
        self.length = length
        self.multiple_of = multiple_of
        self.most = most

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Return the batch. Raises `DataError` if a row is longer than the fixed length."""
        first = samples[0]
        if isinstance(first, Mapping):
            return self._batch_of_dicts(samples)
        if isinstance(first, tuple | list):
            columns = zip(*samples, strict=True)
            return tuple(self._stack(column, IGNORED if place else self.pad) for place, column in enumerate(columns))
        return self._stack(samples, self.pad)

    def _batch_of_dicts(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = {}
        for name in samples[0]:
            batch[name] = self._stack([sample[name] for sample in samples], self._padding_of(name), name)
            if name == "input_ids" and "attention_mask" not in samples[0]:
                lengths = torch.tensor([len(sample[name]) for sample in samples])
                batch["attention_mask"] = (torch.arange(batch[name].shape[1]) < lengths[:, None]).long()
        return batch

    def _padding_of(self, name: str) -> int:
        if name.endswith("input_ids"):
            return self.pad
        return IGNORED if name == "labels" else 0

    def _stack(self, values: Sequence[Any], padding: int, name: str = "") -> Tensor:
        rows = [torch.as_tensor(value) for value in values]
        if rows[0].ndim != 1:
            return torch.stack(rows)
        fixed = self.length.get(name) if isinstance(self.length, Mapping) else self.length
        length = self._length(max(map(len, rows)), fixed)
        stacked = torch.full((len(rows), length), padding, dtype=rows[0].dtype)
        for place, row in enumerate(rows):
            stacked[place, : len(row)] = row
        return stacked

    def _length(self, longest: int, fixed: int | None) -> int:
        if fixed is not None and longest > fixed:
            raise DataError(f"A sample has {longest} tokens, more than the fixed length {fixed} of a batch.")
        wanted = fixed or longest
        rounded = -(-wanted // self.multiple_of) * self.multiple_of
        return max(wanted, min(rounded, self.most)) if self.most is not None else rounded


class SampleRows(Sequence[Any]):
    """The samples of a batch, which is made already: torch's default collation returns it as it is.

    Args:
        batch: A list or a dict of tensors, each with one row per sample.
    """

    def __init__(self, batch: list[Tensor] | dict[str, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())) if isinstance(self.batch, dict) else self.batch[0])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if isinstance(self.batch, dict):
            return _DictRow((name, rows[index]) for name, rows in self.batch.items())
        return _TupleRow(rows[index] for rows in self.batch)


class _Row:
    """A sample of `SampleRows`."""


class _TupleRow(_Row, tuple[Tensor, ...]):
    __slots__ = ()


class _DictRow(_Row, dict[str, Tensor]):
    pass


def _collate_rows(samples: Sequence[Any], **settings: Any) -> Any:
    if isinstance(samples, SampleRows):
        return samples.batch
    return default_collate([dict(row) if isinstance(row, dict) else tuple(row) for row in samples])


default_collate_fn_map[_Row] = _collate_rows
