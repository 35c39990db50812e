"""The training data as the engine takes it: it knows where it is, and goes on from where a checkpoint left it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from rich.progress import track
from torch.utils.data import DataLoader, IterableDataset

from darkit.engine.device import generator_states, restore_generators
from darkit.engine.order import BatchOrder
from darkit.engine.workers import begin

logger = logging.getLogger(__name__)


class Feed:
    """Batches to train on, epoch after epoch.

    Going on from a checkpoint is immediate where the order is darkit's, or where an iterable dataset has ``state_dict``
    and ``load_state_dict`` and no worker processes. Everything else is read forward to the place, with a progress bar
    and a warning.

    An iterable dataset with a method ``set_rank(rank, world_size)`` is told which of how many processes this is, and
    one with ``set_epoch(epoch)``, as those of Hugging Face have it, which epoch begins.

    Args:
        loader: A DataLoader or any iterable of batches.
        order: The loader's order, when it is darkit's.

    Attributes:
        batches: Batches of this epoch that were taken; whoever trains counts them.
    """

    def __init__(self, loader: Any, order: BatchOrder | None = None) -> None:
        self.loader = loader
        self.order = order
        self.batches = 0
        self._epoch = 0
        self._start: dict[str, Any] | None = None  # all generators as they were when this epoch's iteration began
        self._mark: dict[str, Any] = {"epoch": 0, "batches": 0}
        self._begun = -1  # the epoch that was entered last
        self._anchor: dict[str, Any] | None = None  # where a dataset that tells its position was known to be last
        self._batches: Iterator[Any] = iter(())
        self._resumed: Mapping[str, Any] | None = None
        self._restored: dict[str, Any] | None = None

    def __len__(self) -> int:
        if self.order is None and self._stateful() is not None:
            raise TypeError("It is read until it ends, for only then does it know that the next epoch begins.")
        return len(self.loader)

    def share(self, rank: int, world_size: int) -> None:
        """Gives this process its part of the data: of darkit's order, or of a dataset that has a ``set_rank``."""
        if self.order is not None:
            self.order.rank, self.order.world = rank, world_size
            return
        tell = getattr(getattr(self.loader, "dataset", None), "set_rank", None)
        if callable(tell):
            tell(rank, world_size)

    def mark(self) -> None:
        """Notes that the batches taken so far are in the weights: whoever trains calls it after every step."""
        self._mark = {"epoch": self._epoch, "batches": self.batches, "start": self._start}

    def position(self, *, broken_off: bool = False) -> dict[str, Any]:
        """Tells where the training was at the last `mark`, for a checkpoint.

        Args:
            broken_off: Whether more may have been read since: then nothing is asked of the data as it is now.
        """
        place = {key: self._mark[key] for key in ("epoch", "batches")}
        if broken_off and self.order is None and self._begun == place["epoch"]:
            return place | self._position_before()
        if self.order is None:
            stateful = self._stateful()
            if stateful is not None:
                fetcher = getattr(self._batches, "_dataset_fetcher", None)
                place["dataset"] = stateful.state_dict()
                place["ended"] = bool(getattr(fetcher, "ended", False))  # with a last batch that was not full
                self._set_anchor(place["dataset"], place["batches"], ended=place["ended"])
            elif place["batches"]:
                place["start"] = self._mark["start"]
            place["own_generators"] = [generator.get_state() for generator in _own_generators(self.loader)]
        return place

    def _position_before(self) -> dict[str, Any]:
        """Tells where the data was at the last `mark` by what was known of it before."""
        if self._anchor is not None:
            return dict(self._anchor)
        start = self._start or {}
        return {"start": start, "own_generators": start.get("own")}

    def _set_anchor(self, state: Any, read: int, *, ended: bool = False) -> None:
        """Remembers the state of a dataset after so many batches of the epoch, to read forward from."""
        own = [generator.get_state() for generator in _own_generators(self.loader)]
        self._anchor = {
            "dataset": copy.deepcopy(state),
            "read": read,
            "ended": ended,
            "start": generator_states() | {"own": own},
            "own_generators": own,
        }

    def resume(self, position: Mapping[str, Any], generators: dict[str, Any]) -> None:
        """Lets the next iteration go on at a checkpoint's position, with the generators as they were there."""
        self._epoch, self.batches = position["epoch"], position["batches"]
        self._restored = generators
        if self.order is not None:
            self.order.start(self._epoch, self.batches)
        else:
            self._resumed = position
        self._mark = {"epoch": self._epoch, "batches": self.batches, "start": position.get("start")}

    def next_epoch(self, epoch: int) -> None:
        """Begins an epoch."""
        self._epoch, self.batches = epoch, 0
        if self.order is not None:
            self.order.start(epoch, 0)

    def __iter__(self) -> Iterator[Any]:
        resumed, self._resumed = self._resumed, None
        restored, self._restored = self._restored, None
        if self.order is not None:
            batches = begin(self.loader)  # it draws from a generator of its own
        elif resumed is None:
            batches = self._begin()
        else:
            batches = self._go_on(resumed, restored)
        if restored is not None and (resumed is None or resumed["batches"]):
            restore_generators(restored)
        self._batches = batches
        del batches  # so that `close` lets go of the last reference
        while True:
            try:
                batch = next(self._batches)
            except StopIteration:
                return
            yield batch

    def close(self) -> None:
        """Lets go of the data, so that its worker processes end now and not when memory happens to be collected.

        A collector that finds workers waits five seconds for each: it closes their pipes first.
        """
        self._batches, self.loader = iter(()), ()

    def _begin(self) -> Iterator[Any]:
        own = [generator.get_state() for generator in _own_generators(self.loader)]
        self._start = generator_states() | {"own": own}
        _tell_epoch(self.loader, self._epoch)
        self._begun = self._epoch
        if (stateful := self._stateful()) is not None:
            self._set_anchor(stateful.state_dict(), 0)
        return begin(self.loader)

    def _go_on(self, position: Mapping[str, Any], generators: dict[str, Any] | None) -> Iterator[Any]:
        """Enters data that darkit does not order where it was left."""
        stateful = self._stateful() if "dataset" in position else None
        if stateful is not None:
            stateful.load_state_dict(position["dataset"])
        if not position["batches"] or position.get("read") == 0:
            self._set_own(position.get("own_generators"))
            if (before := position.get("start") or generators) is not None:
                restore_generators(before)
            batches = self._begin()
            self._skip(batches, position["batches"])
            return batches
        if stateful is None:
            return self._read_forward(position)
        if position["ended"]:  # the dataset's state is that of the next epoch already
            self._set_own(position.get("own_generators"))
            return iter(())
        batches = self._begin()
        self._set_own(position.get("own_generators"))
        read, start = position.get("read", position["batches"]), position.get("start") or generators
        if start is not None:
            restore_generators(start)
        self._set_anchor(position["dataset"], read)
        self._skip(batches, position["batches"] - read)
        return batches

    def _read_forward(self, position: Mapping[str, Any]) -> Iterator[Any]:
        count, start = position["batches"], position.get("start")
        logger.warning(
            "Reading %d batches forward to where the checkpoint was: this data cannot be entered in the middle. A "
            "map-style dataset, or an iterable one with state_dict and load_state_dict and num_workers=0, can.",
            count,
        )
        if start is not None:
            restore_generators(start)
            self._set_own(start["own"])
        batches = self._begin()
        self._skip(batches, count)
        return batches

    def _skip(self, batches: Iterator[Any], count: int) -> None:
        if count:
            for _ in track(islice(batches, count), "reading forward", total=count, transient=True):
                pass

    def _set_own(self, states: Any) -> None:
        for generator, state in zip(_own_generators(self.loader), states or (), strict=False):
            generator.set_state(state.cpu())

    def _stateful(self) -> Any:
        """Returns the iterable dataset if its position can be asked for and set in this process, or None."""
        loader = self.loader
        if not isinstance(loader, DataLoader) or loader.num_workers or not isinstance(loader.dataset, IterableDataset):
            return None
        able = all(hasattr(loader.dataset, name) for name in ("state_dict", "load_state_dict"))
        return loader.dataset if able else None


def _own_generators(loader: Any) -> list[torch.Generator]:
    """Returns the generators that a loader and its samplers have of their own, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = [getattr(part, "generator", None) for part in parts]
    return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())


def _tell_epoch(loader: Any, epoch: int) -> None:
    """Tells the dataset and the samplers of somebody's loader the epoch, as e.g. a ``DistributedSampler`` wants."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for part in (getattr(loader, "dataset", None), *samplers):
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
