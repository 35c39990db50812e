"""The order of map-style data: a function of (seed, epoch, batch), so that training can start at any batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from darkit.engine.device import seed_generators

_EPOCHS = 1_000_003  # seeds of neighbouring runs and epochs must not overlap


class Batch(list[int]):
    """The indices of one batch, with the seed for its random numbers.

    Attributes:
        seed: Seed of the python, numpy and torch generators for this batch.
    """

    def __init__(self, indices: Iterable[int], seed: int = 0) -> None:
        super().__init__(indices)
        self.seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (list(self), self.seed)


class PlacedSampler(Sampler[list[int]]):
    """Batches with seeds; iteration can start at any batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rank, self.world = 0, 1
        self.epoch, self.first = 0, 0

    def start(self, epoch: int, batch: int) -> None:
        """Set the epoch and the first batch of the next iteration."""
        self.epoch, self.first = epoch, batch

    def _batch(self, indices: Iterable[int], number: int) -> Batch:
        return Batch(indices, self._seed(1 + number * self.world + self.rank))

    def _seed(self, place: int) -> int:
        return (self.seed * _EPOCHS * _EPOCHS + self.epoch * _EPOCHS + place) % 2**63


class BatchOrder(PlacedSampler):
    """Batches of a map-style dataset.

    The samples of an epoch are in a permutation given by (seed, epoch), or in their own order. Each rank takes every
    ``world``-th sample; all ranks get the same number.

    Args:
        length: Samples in the dataset.
        batch_size: Samples per batch and rank.
        seed: Seed of the order.
        shuffle: Whether to draw a permutation.
        drop_last: Whether to drop a partial last batch.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, *, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        super().__init__(seed)
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(self._seed(0))
            order = torch.randperm(self.length, generator=generator)
        else:
            order = torch.arange(self.length)
        mine = order[self.rank :: self.world][: self._samples()].tolist()
        for number in range(self.first, len(self)):
            yield self._batch(mine[number * self.batch_size : (number + 1) * self.batch_size], number)

    def __len__(self) -> int:
        """Batches of a rank in a full epoch, independent of the start."""
        full, rest = divmod(self._samples(), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def _samples(self) -> int:
        return max(1, self.length // self.world)


class PlacedBatches(PlacedSampler):
    """Batches of a user's sampler, with seeds for the workers.

    Starting in the middle draws the earlier batches, but loads none of their samples.

    Args:
        batches: A batch sampler.
        seed: Seed of the workers' random numbers.
    """

    def __init__(self, batches: Iterable[Any], seed: int) -> None:
        super().__init__(seed)
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        for number, indices in enumerate(self.batches):
            if number >= self.first:
                yield self._batch(indices, number)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


class SeededDataset(Dataset[Any]):
    """A dataset for worker processes, with random numbers that depend on the batch and not on the worker.

    Attributes are those of the dataset, for a ``worker_init_fn`` that uses ``get_worker_info().dataset``.

    Args:
        dataset: The dataset itself.
    """

    def __init__(self, dataset: Any) -> None:
        self.__dict__["dataset"] = dataset

    def __getattr__(self, name: str) -> Any:
        if "dataset" not in self.__dict__:  # during unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, batch: Batch) -> list[Any]:
        """Load one batch."""
        seed_generators(batch.seed)
        if hasattr(self.dataset, "__getitems__"):
            return list(self.dataset.__getitems__(list(batch)))
        try:
            return [self.dataset[index] for index in batch]
        except StopIteration as error:  # the loader would treat it as the end of the data
            raise RuntimeError("The dataset raised StopIteration for one of its samples.") from error
