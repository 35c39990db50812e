"""Validation data divided over several processes: each loads every n-th batch, the batches themselves staying the same.

So whatever is computed of a batch is what one process would have computed. Only data whose batches are the same in all
processes can be divided like this: in darkit's own order, or a plain loader that is put into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader
from torch.utils.data.distributed import DistributedSampler

from darkit.engine.config import TrainerConfig
from darkit.engine.data.adopt import known_order, ordered_feed
from darkit.engine.data.order import BatchOrder, RowSampler
from darkit.engine.data.ranks import kept_settings


class Shards(RowSampler):
    """Every n-th batch of an order; all of them until `divide` is called.

    Args:
        order: The batches of all processes.
    """

    def __init__(self, order: BatchOrder) -> None:
        super().__init__(order.seed)
        self.order = order
        self.mine, self.of = 0, 1

    def divide(self, rank: int, world_size: int, iters: int, *, evenly: bool = False) -> bool:
        """Divide the batches, or only the first ``iters`` of them, unless a process would have none.

        Args:
            rank: The rank of this process.
            world_size: The number of processes.
            iters: The number of batches to divide; 0 means all.
            evenly: Whether to divide them only if all processes get the same number.

        Returns:
            Whether they are divided; otherwise every process has all of them.
        """
        batches = min(len(self.order), iters or len(self.order))
        can = batches >= world_size and not (evenly and batches % world_size)
        self.mine, self.of = (rank, world_size) if can else (0, 1)
        return self.of > 1

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.order, self.mine, None, self.of)

    def rows(self) -> Iterator[Tensor]:
        return islice(self.order.rows(), self.mine, None, self.of)

    def __len__(self) -> int:
        return len(range(self.mine, len(self.order), self.of))


def divisible(loader: Any, config: TrainerConfig) -> Any:
    """Return a validation loader whose batches can be divided, or the loader itself if they cannot.

    A `DistributedSampler`, which repeats samples to make the processes even, is replaced.
    """
    if config.process_count() == 1 or not isinstance(loader, DataLoader):
        return loader
    order = loader.batch_sampler
    if not isinstance(order, BatchOrder):
        found = _order_of(loader, config.seed)
        if found is None:
            return loader
        order, settings = found, kept_settings(loader)
        loader = ordered_feed(loader.dataset, order, loader.num_workers, config, settings).loader
    return DataLoader(
        loader.dataset,
        batch_sampler=Shards(order),
        num_workers=loader.num_workers,
        generator=loader.generator,
        **kept_settings(loader),
    )


def shards_of(batches: Any) -> Shards | None:
    """Return what divides validation batches; None if they are not known to be the same in all processes."""
    found = getattr(batches, "batch_sampler", None)
    return found if isinstance(found, Shards) else None


def ordered_datasets(loaders: Any) -> dict[str, Any]:
    """Return the datasets that darkit divides over the processes, by purpose; None for other data."""
    train = loaders.train.loader.dataset if loaders.train.order is not None else None
    return {"training": train, "validation": loaders.val.dataset if shards_of(loaders.val) is not None else None}


def _order_of(loader: DataLoader[Any], seed: int) -> BatchOrder | None:
    """Return darkit's order for a user's loader; None if it has batches of its own."""
    shuffle = known_order(loader)
    if shuffle is None:
        sampler: Any = loader.sampler
        batches: Any = loader.batch_sampler
        plain = type(loader) is DataLoader and type(batches) is BatchSampler and batches.sampler is sampler
        if not plain or type(sampler) is not DistributedSampler or sampler.dataset is not loader.dataset:
            return None
        shuffle = sampler.shuffle
    size = len(loader.dataset)  # type: ignore[arg-type]
    return BatchOrder(size, loader.batch_size or 1, seed, shuffle=shuffle, drop_last=loader.drop_last)
