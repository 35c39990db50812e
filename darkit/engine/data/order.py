"""The order of map-style data: a function of (seed, epoch, batch), so that training can start at any batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from darkit.engine.device import seed_generators

NO_END = "The dataset raised StopIteration for one of its samples."
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


class RowSampler(PlacedSampler):
    """Batches whose indices are known without loading a sample."""

    def rows(self) -> Iterator[Tensor]:
        """Yield the indices of each batch as a tensor."""
        raise NotImplementedError


class BatchOrder(RowSampler):
    """Batches of a map-style dataset.

    The samples of an epoch are in a permutation given by (seed, epoch), or in their own order, and are cut into units:
    what all ranks load together for one batch each or, with ``total``, for one optimizer step. A unit is cut into
    groups of almost equal size, one for each rank and batch: group ``g`` of ``n`` has every n-th sample from sample
    ``g`` on. So the unit is the same for any number of ranks, and so are its groups as long as their number is. The
    last unit of an epoch has the remaining samples, in as few batches as possible.

    A rank without a sample in the last unit gets a filler: a batch of one sample that another rank has, which the
    training must not count.

    Args:
        length: Samples in the dataset.
        batch_size: Samples per batch and rank; with ``total`` the most samples.
        seed: Seed of the order.
        shuffle: Whether to draw a permutation.
        drop_last: Whether to drop a partial last unit.

    Attributes:
        total: Samples of an optimizer step on all ranks, or None.
        accumulation: Batches of a rank in an optimizer step, without ``total``.
        even: Whether each rank gets the same number of samples, for a training that cannot weight its batches; up to
            ``world - 1`` samples of an epoch are then left out.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, *, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        super().__init__(seed)
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.total: int | None = None
        self.accumulation = 1
        self.even = False

    def __iter__(self) -> Iterator[list[int]]:
        for number, rows in enumerate(self.rows(), self.first):
            yield self._batch(rows.tolist(), number)

    def rows(self) -> Iterator[Tensor]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(self._seed(0))
            order = torch.randperm(self.length, generator=generator)
        else:
            order = torch.arange(self.length)
        unit, parts, whole = self.unit, self.parts(), self._full * self.parts()
        groups = parts * self.world
        for number in range(self.first, whole):
            place, part = divmod(number, parts)
            first, group = place * unit, part * self.world + self.rank
            yield order[first + group : first + unit : groups] if group < unit else order[first : first + 1]
        for number in range(max(self.first, whole), len(self)):
            first, size, group, groups = self._group(number)
            yield order[first + group : first + size : groups] if group < size else order[first : first + 1]

    def __len__(self) -> int:
        """Batches of a rank in a full epoch, independent of the start."""
        return self._full * self.parts() + (0 if self.drop_last else self.parts(self._rest))

    @property
    def unit(self) -> int:
        """Samples of a unit."""
        return self.total or self.batch_size * self.world

    @property
    def units(self) -> int:
        """Units of an epoch."""
        return self._full + (self._rest > 0 and not self.drop_last)

    @property
    def per_step(self) -> int | None:
        """Samples of an optimizer step; None if a step may have samples of two epochs, so that no cut reproduces it."""
        if self.total is not None:
            return self.total
        return None if self.units % self.accumulation else self.unit * self.accumulation

    def parts(self, size: int | None = None) -> int:
        """Return the batches of a rank in a unit of that many samples, by default a full one."""
        each = -(-(self.unit if size is None else size) // self.world)
        return -(-each // self.batch_size)

    def parts_at(self, number: int) -> int:
        """Return the batches of a rank in the unit of a batch."""
        return self.parts() if number < self._full * self.parts() else self.parts(self._rest)

    def is_filler(self, number: int) -> bool:
        """Return whether this rank has no sample of its own in a batch."""
        _, size, group, _ = self._group(number)
        return group >= size

    def place(self, number: int) -> dict[str, int | None]:
        """Describe the place before a batch for any number of ranks.

        Returns:
            ``samples``, of all ranks in the units of this epoch before it; ``per_step``; ``groups`` of a unit.
        """
        full = self._full * self.parts()
        samples = self._taken if number >= len(self) else min(number, full) // self.parts() * self.unit
        return {"samples": samples, "per_step": self.per_step, "groups": self.parts() * self.world}

    def batch_after(self, samples: int) -> int:
        """Return the batch that follows so many samples of all ranks, or the first of its unit."""
        return len(self) if samples >= self._taken else samples // self.unit * self.parts()

    def is_within_unit(self, samples: int) -> bool:
        """Return whether no unit ends after so many samples of all ranks."""
        return samples < self._taken and samples % self.unit > 0

    def _group(self, number: int) -> tuple[int, int, int, int]:
        """Return the first sample and the size of a batch's unit, and this rank's group of how many."""
        full = self._full * self.parts()
        unit, part = divmod(number, self.parts()) if number < full else (self._full, number - full)
        size = self.unit if number < full else self._rest
        return unit * self.unit, size, part * self.world + self.rank, self.parts(size) * self.world

    @property
    def _taken(self) -> int:
        """Samples of an epoch."""
        return self._full * self.unit + (0 if self.drop_last else self._rest)

    @property
    def _full(self) -> int:
        return self.length // self.unit

    @property
    def _rest(self) -> int:
        """Samples of the last, partial unit."""
        rest = self.length % self.unit
        if not self.even:
            return rest
        return rest // self.world * self.world or (self.length < self.world) * self.world


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

    def __getitems__(self, batch: Batch) -> Sequence[Any]:
        """Load one batch."""
        seed_generators(batch.seed)
        try:
            if hasattr(self.dataset, "__getitems__"):
                samples: Sequence[Any] = self.dataset.__getitems__(list(batch))
                return samples
            return [self.dataset[index] for index in batch]
        except StopIteration as error:  # the loader would treat it as the end of the data
            raise RuntimeError(NO_END) from error


def refuse_early_end(order: Any, batches: int) -> None:
    """Refuse that torch's loader ends before the last batch of darkit's order: something raised StopIteration.

    Args:
        order: The loader's batch sampler, or None; others than darkit's may have any length.
        batches: How many batches of the epoch there were.

    Raises:
        RuntimeError: The order has more.
    """
    if isinstance(order, BatchOrder) and batches < len(order):
        raise RuntimeError(
            f"The data ended after batch {batches} of {len(order)}: its dataset or collate_fn raised StopIteration."
        )
