"""A loader for any training loop, with a position that can be saved and restored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import Dataset

from darkit.engine.config import TrainerConfig
from darkit.engine.data.adopt import ordered_feed, refuse_empty
from darkit.engine.data.feed import Feed
from darkit.engine.data.order import BatchOrder
from darkit.engine.data.workers import shield_workers, unshield_workers
from darkit.errors import DataError, ReproductionWarning

_ORDER = {
    "length": "samples",
    "batch_size": "batch size",
    "seed": "seed",
    "shuffle": "shuffle",
    "drop_last": "drop_last",
}


class StatefulLoader:
    """Batches in passes (epochs), with a position that ``state_dict`` and ``load_state_dict`` save and restore.

    Each iteration is one pass over the data; the first one after ``load_state_dict`` is the rest of the interrupted
    pass. Attributes of the loader inside, such as ``dataset`` and ``batch_size``, can be read from this one.

    Args:
        feed: The batches.

    Attributes:
        feed: The batches and their position.
        is_marked: Whether the owner calls `mark` after every step; otherwise ``state_dict`` does.
    """

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.is_marked = False
        self._pass = 0
        self._continues = self._warned = False
        feed.share(0, 1, even=True)
        shield_workers(feed.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "feed":  # while being unpickled
            raise AttributeError(name)
        return getattr(self.feed.loader, name)

    def __len__(self) -> int:
        self._share()
        return len(self.feed)

    def __iter__(self) -> Iterator[Any]:
        self._share()
        if self.feed.batches and not self._continues:
            self.next_pass()
        self._continues = False
        for batch in self.feed:
            self.feed.batches += 1
            yield batch

    def begin_at(self, number: int) -> None:
        """Start at the pass of this number, counted from 0."""
        self._pass = number
        self.feed.next_epoch(number)

    def next_pass(self) -> None:
        """End the current pass; the next iteration starts another one."""
        self.begin_at(self._pass + 1)

    @property
    def passes(self) -> int:
        """The number of passes that have begun."""
        return self._pass + bool(self.feed.batches)

    def mark(self, ahead: int = 0) -> None:
        """Record the position.

        Args:
            ahead: Batches that were fetched and not used yet.
        """
        self.feed.batches -= ahead
        self.feed.mark()
        self.feed.batches += ahead

    def position(self, *, interrupted: bool = False) -> dict[str, Any]:
        """Return the last recorded position; see `darkit.engine.data.feed.Feed.position`."""
        order = self.feed.order
        facts = {} if order is None else {"order": {name: getattr(order, name) for name in _ORDER}}
        return self.feed.position(interrupted=interrupted) | facts

    def state_dict(self) -> dict[str, Any]:
        """Return the position; after the last batch of a pass it is the start of the next one."""
        if not self.is_marked:
            self.mark()
        return self.position()

    def load_state_dict(
        self, state: Mapping[str, Any], generators: dict[str, Any] | None = None, *, within_pass: bool = False
    ) -> None:
        """Restore a position.

        Args:
            state: What ``state_dict`` returned.
            generators: The states of the global generators, to restore when the next batch is fetched, or None.
            within_pass: Whether a pass without batches left is not over: the next iteration is then empty.

        Raises:
            DataError: It is not one.
        """
        if not {"epoch", "batches"} <= state.keys():
            raise DataError(f"The state of a loader needs 'epoch' and 'batches', but has {sorted(map(str, state))}.")
        self._warn_of_other_order(state.get("order", {}))
        self._pass = state["epoch"]
        self.feed.resume(state, generators)
        self._continues = bool(self.feed.batches)
        if self._continues and not within_pass and self.feed.batches >= self._length():
            self._continues = False
            self.next_pass()

    def _warn_of_other_order(self, saved: Mapping[str, Any]) -> None:
        now = {name: getattr(self.feed.order, name, None) for name in saved}
        changed = [
            f"{_ORDER.get(name, name)} {saved[name]} -> {now[name]}" for name in saved if saved[name] != now[name]
        ]
        if changed and not self._warned:
            self._warned = True
            warnings.warn(
                f"The state is of a loader with other batches ({', '.join(changed)}): its place counts batches of the "
                "new loader, so the resumed training is not an exact continuation.",
                ReproductionWarning,
                stacklevel=3,
            )

    def close(self) -> None:
        """Release the data and end its worker processes."""
        unshield_workers(self.feed.loader)
        self.feed.close()

    def _share(self) -> None:
        """Read the part of this process, if there are several."""
        if not self.is_marked and torch.distributed.is_available() and torch.distributed.is_initialized():
            self.feed.share(torch.distributed.get_rank(), torch.distributed.get_world_size(), even=True)

    def _length(self) -> float:
        try:
            return len(self)
        except TypeError:
            return float("inf")


def dataloader(
    dataset: Dataset[Any],
    batch_size: int = 1,
    *,
    shuffle: bool = True,
    seed: int = 0,
    num_workers: int = 0,
    drop_last: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool = False,
) -> StatefulLoader:
    """Return a loader whose order depends only on seed, epoch and batch, so that any loop can resume exactly.

    It has ``state_dict`` and ``load_state_dict``, which Lightning calls by itself. In a process group each process gets
    its share of every epoch. Random numbers that worker processes draw depend on the batch only.

    Args:
        dataset: A map-style dataset.
        batch_size: Samples per batch and process, at least 1.
        shuffle: Whether every epoch has an order of its own.
        seed: Seed of the order and of the workers' random numbers.
        num_workers: Worker processes; 0 loads in this process.
        drop_last: Whether to drop a partial last batch.
        collate_fn: Makes a batch of samples; by default torch's.
        pin_memory: Whether batches are put into page-locked memory.

    Raises:
        ConfigError: A number is out of its range.
        DataError: The dataset is empty or not map-style.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"darkit.dataloader needs a dataset with __getitem__ and __len__, not {type(dataset).__name__}: an "
            "iterable dataset has its own order."
        )
    config = TrainerConfig(batch_size=batch_size, seed=seed, num_workers=num_workers, device="cpu")
    if not len(dataset):
        raise DataError(f"The training data is empty: the {type(dataset).__name__} has no samples.")
    order = BatchOrder(len(dataset), batch_size, seed, shuffle=shuffle, drop_last=drop_last)
    settings = {"pin_memory": pin_memory, **({} if collate_fn is None else {"collate_fn": collate_fn})}
    feed = ordered_feed(dataset, order, num_workers, config, settings)
    refuse_empty(feed, "training")
    return StatefulLoader(feed)
