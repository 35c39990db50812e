"""The order of the training data: a function of (seed, epoch, batch), so that one can enter it anywhere at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from darkit.engine.device import seed_generators

_EPOCHS = 1_000_003  # seeds of neighbouring runs and epochs must not meet


class Batch(list[int]):
    """The indices of one batch, with its place: a worker that loads it takes its random numbers from there.

    Attributes:
        seed: What python's, numpy's and torch's generators start from for this batch.
    """

    def __init__(self, indices: Iterable[int], seed: int = 0) -> None:
        super().__init__(indices)
        self.seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (list(self), self.seed)


class PlacedSampler(Sampler[list[int]]):
    """Batches that carry their place, and can be entered at any of them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rank, self.world = 0, 1
        self.epoch, self.first = 0, 0

    def start(self, epoch: int, batch: int) -> None:
        """Sets where the next iteration begins: so many batches of a rank into an epoch."""
        self.epoch, self.first = epoch, batch

    def _batch(self, indices: Iterable[int], number: int) -> Batch:
        return Batch(indices, self._seed(1 + number * self.world + self.rank))

    def _seed(self, place: int) -> int:
        return (self.seed * _EPOCHS * _EPOCHS + self.epoch * _EPOCHS + place) % 2**63


class BatchOrder(PlacedSampler):
    """Batches of a map-style dataset.

    The samples of an epoch are in a permutation drawn from (seed, epoch), or in their own order. Ranks take every
    ``world``-th of them and all ranks the same number, so that none waits for another.

    Args:
        length: Samples in the dataset.
        batch_size: Samples per batch and rank.
        seed: Seed of the order.
        shuffle: Whether to draw a permutation.
        drop_last: Whether a last batch that is not full is left out.
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
        """Batches of a rank in a whole epoch, wherever the next iteration begins."""
        full, rest = divmod(self._samples(), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def _samples(self) -> int:
        return max(1, self.length // self.world)


class PlacedBatches(PlacedSampler):
    """Somebody's batches, each with its place: the samples that workers draw for it depend on nothing else.

    Entering them in the middle draws the batches before it, but loads none of their samples.

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
    """A dataset for worker processes, whose random numbers depend on the batch and not on which worker loads it.

    Its attributes are those of the dataset, for a ``worker_init_fn`` that looks at ``get_worker_info().dataset``.

    Args:
        dataset: The dataset itself.
    """

    def __init__(self, dataset: Any) -> None:
        self.__dict__["dataset"] = dataset

    def __getattr__(self, name: str) -> Any:
        if "dataset" not in self.__dict__:  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, batch: Batch) -> list[Any]:
        """Loads one batch."""
        seed_generators(batch.seed)
        if hasattr(self.dataset, "__getitems__"):
            return list(self.dataset.__getitems__(list(batch)))
        try:
            return [self.dataset[index] for index in batch]
        except StopIteration as error:  # the loader would take it for the end of the data
            raise RuntimeError("The dataset raised StopIteration for one of its samples.") from error
