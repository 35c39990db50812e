"""The training data as the engine takes it: it knows where it is, and goes on from where a checkpoint left it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from darkit.engine.data.held import Held
from darkit.engine.data.order import BatchOrder, PlacedBatches, PlacedSampler
from darkit.engine.data.samples import misfit_of_samples
from darkit.engine.data.workers import begin, end
from darkit.engine.device import generator_states, restore_generators

logger = logging.getLogger(__name__)


class Feed:
    """Batches to train on, epoch after epoch.

    Going on from a checkpoint is immediate where the order is darkit's, where worker processes load the samples that
    somebody's batch sampler asks for, or where an iterable dataset has ``state_dict`` and ``load_state_dict`` and no
    worker processes. Everything else is read forward to the place, with a progress bar and a warning.

    Data that darkit does not order draws from a state of torch's generator of its own. So reading it forward draws the
    same again, whatever the model has drawn in between.

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
        own = getattr(loader, "batch_sampler", None)
        self._placed = own if isinstance(own, PlacedSampler) else None  # darkit's order, or somebody's with places
        self._stateful = None if order is not None else stateful_dataset(loader)
        self._held = Held(_seen_in_order(loader) if order is not None else loader, without=self._stateful)
        self._epoch = 0
        self._drawn = 0  # batches of this epoch that were asked for, also one that has not come
        self._torch: Tensor | None = None  # the state of torch's generator that this data draws from
        self._start: dict[str, Any] | None = None  # what this epoch began with
        self._mark: dict[str, Any] = {"epoch": 0, "batches": 0, "start": None}
        self._batches: Iterator[Any] = iter(())
        self._resumed: Mapping[str, Any] | None = None
        self._restored: dict[str, Any] | None = None

    def __len__(self) -> int:
        if self._stateful is not None:
            raise TypeError("It is read until it ends, for only then does it know that the next epoch begins.")
        return len(self.loader)

    @property
    def has_workers(self) -> bool:
        """Whether worker processes load the data."""
        return bool(getattr(self.loader, "num_workers", 0))

    def share(self, rank: int, world_size: int) -> None:
        """Gives this process its part of the data: of darkit's order, or of a dataset that has a ``set_rank``."""
        if self._placed is not None:
            self._placed.rank, self._placed.world = rank, world_size
        if self.order is not None:
            return
        tell = getattr(getattr(self.loader, "dataset", None), "set_rank", None)
        if callable(tell):
            tell(rank, world_size)

    def mark(self) -> None:
        """Notes that the batches taken so far are in the weights: whoever trains calls it after every step."""
        if self.order is None and not self.batches:  # the epoch has ended, and the next one has not begun
            self._start = self._now()
        self._mark = {"epoch": self._epoch, "batches": self.batches, "start": self._start}
        if self.order is not None and self._held.has_generators():
            self._mark["held"] = self._held.state()

    def position(self, *, broken_off: bool = False) -> dict[str, Any]:
        """Tells where the training was at the last `mark`, for a checkpoint.

        Args:
            broken_off: Whether an error broke off what came after: then nothing is asked of the data as it is now.
        """
        mark = self._mark
        place = {key: mark[key] for key in ("epoch", "batches")}
        if self.order is not None:
            return place | ({"held": mark["held"]} if "held" in mark else {})
        taken = self._drawn == mark["batches"] and self._epoch == mark["epoch"]
        if self._stateful is None or broken_off or not taken:  # a batch that was drawn since is not in the weights
            return place | {"start": mark["start"]}
        fetcher = getattr(self._batches, "_dataset_fetcher", None)
        here = {
            "dataset": self._stateful.state_dict(),
            "ended": bool(getattr(fetcher, "ended", False)),  # with a last batch that was not full
            "held": self._held.state(),
            **({} if self._torch is None else {"torch": self._torch}),
        }
        if self._torch is not None:
            self._start = mark["start"] = generator_states() | copy.deepcopy(here) | {"batches": mark["batches"]}
        return place | here

    def resume(self, position: Mapping[str, Any], generators: dict[str, Any]) -> None:
        """Lets the next iteration go on at a checkpoint's position, with the generators as they were there."""
        self._epoch, self.batches = position["epoch"], position["batches"]
        self._restored = generators
        if self._placed is not None:
            self._placed.start(self._epoch, self.batches)
        if self.order is not None:
            self._held.restore(position.get("held"))
        else:
            self._resumed = position
        self._mark = {"epoch": self._epoch, "batches": self.batches, "start": position.get("start")}
        if "held" in position:
            self._mark["held"] = position["held"]

    def next_epoch(self, epoch: int) -> None:
        """Begins an epoch."""
        self._epoch, self.batches, self._drawn = epoch, 0, 0
        if self._placed is not None:
            self._placed.start(epoch, 0)

    def __iter__(self) -> Iterator[Any]:
        resumed, self._resumed = self._resumed, None
        restored, self._restored = self._restored, None
        if self.order is not None:
            batches = begin(self.loader)  # it draws from a generator of its own
        elif resumed is None:
            batches = self._begin()
        else:
            if restored is not None:
                restore_generators(restored)
            batches = self._go_on(resumed)
        if restored is not None and (resumed is None or resumed["batches"]):
            restore_generators(restored)
        self._batches = batches
        self._drawn = self.batches
        del batches  # so that `close` lets go of the last reference
        while True:
            self._drawn += 1
            try:
                batch = next(self._batches) if self.order is not None else self._next()
            except StopIteration:
                return
            except (RuntimeError, TypeError) as error:
                if (misfit := misfit_of_samples(error, "training")) is None:
                    raise
                raise misfit from error
            yield batch

    def close(self) -> None:
        """Lets go of the data, so that its worker processes end now and not when memory happens to be collected.

        A collector that finds workers waits five seconds for each: it closes their pipes first.
        """
        end(self._batches)
        self._batches, self.loader = iter(()), ()
        self._stateful = self._placed = None
        self._held = Held(())

    def _next(self) -> Any:
        with self._drawing():
            return next(self._batches)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Gives this data the state of torch's generator that is its own, for as long as it may draw."""
        if self._torch is None:
            seed = int(torch.empty((), dtype=torch.int64).random_().item())
            self._torch = torch.Generator().manual_seed(seed).get_state()
        outside = torch.get_rng_state()
        torch.set_rng_state(self._torch)
        try:
            yield
        finally:
            self._torch = torch.get_rng_state()
            torch.set_rng_state(outside)

    def _begin(self) -> Iterator[Any]:
        self._start = self._now()
        return self._open()

    def _open(self) -> Iterator[Any]:
        _tell_epoch(self.loader, self._epoch)
        with self._drawing():
            return begin(self.loader)

    def _now(self) -> dict[str, Any]:
        """Returns what reading forward from here needs."""
        now: dict[str, Any] = {"batches": self.batches, "held": self._held.state()}
        if self._stateful is not None and (self._epoch or self.batches):  # else it is new, and may not know it yet
            now["dataset"] = self._stateful.state_dict()
        with self._drawing():
            return now | generator_states()

    def _go_on(self, position: Mapping[str, Any]) -> Iterator[Any]:
        """Enters data that darkit does not order where it was left."""
        start = position.get("start")
        if self._stateful is not None and "dataset" in position:
            return self._enter(position, position["batches"])
        if start is None:
            self._held.restore(position.get("own_generators"))
            batches = self._begin()
            self._read_forward(batches, position["batches"])
            return batches
        if position["batches"]:
            restore_generators(start)
        batches = self._enter(start, start.get("batches", 0))
        self._start = dict(start)
        self._read_forward(batches, position["batches"] - start.get("batches", 0))
        return batches

    def _enter(self, place: Mapping[str, Any], taken: int) -> Iterator[Any]:
        """Begins where so many batches of the epoch had been taken, of which the dataset's state knows."""
        held = place.get("held", place.get("own_generators", place.get("own")))
        drawn_from = place.get("torch")
        if drawn_from is None and taken:  # of an older checkpoint: it drew from the model's
            drawn_from = torch.get_rng_state()
        self._torch = None if drawn_from is None else drawn_from.cpu()
        self._held.restore(held)
        if self._stateful is not None and "dataset" in place:
            self._stateful.load_state_dict(place["dataset"])
        if taken and place.get("ended"):  # the dataset's state is that of the next epoch already
            self._start = self._now() | {"ended": True}
            return iter(())
        batches = self._begin()
        if self._start is not None and "dataset" in place:
            self._start["dataset"] = place["dataset"]
        if taken:  # what is drawn to begin had been drawn before
            self._torch = drawn_from
            self._held.restore(held)
        return batches

    def _read_forward(self, batches: Iterator[Any], count: int) -> None:
        if not count or self._placed is not None:  # whose sampler has skipped them
            return
        logger.warning(
            "Reading %d batches forward to where the checkpoint was: this data cannot be entered in the middle. A "
            "map-style dataset, or an iterable one with state_dict and load_state_dict and num_workers=0, can.",
            count,
        )
        with self._drawing():
            for _ in track(islice(batches, count), "reading forward", total=count, transient=True):
                pass


def _seen_in_order(loader: Any) -> Any:
    """Returns the dataset of a loader in darkit's order where the samples are loaded in this process."""
    return () if loader.num_workers else loader.dataset


def stateful_dataset(loader: Any) -> Any:
    """Returns a loader's iterable dataset if its position can be asked for and set in this process, or None.

    A stream of Hugging Face with a shuffle buffer cannot: its ``state_dict`` leaves out what is in the buffer.
    """
    if type(loader) is not DataLoader or loader.num_workers or not isinstance(loader.dataset, IterableDataset):
        return None
    dataset = loader.dataset
    able = all(callable(getattr(dataset, name, None)) for name in ("state_dict", "load_state_dict"))
    return dataset if able and not has_shuffle_buffer(dataset) else None


def has_shuffle_buffer(dataset: Any) -> bool:
    """Says whether a stream of Hugging Face mixes its samples in a buffer, as ``shuffle(buffer_size=...)`` does."""
    if type(dataset).__module__.partition(".")[0] != "datasets":
        return False
    left = [getattr(dataset, "_ex_iterable", None)]
    while left:
        part = left.pop()
        if part is None or getattr(part, "buffer_size", 1) > 1:  # None: a version that keeps it elsewhere
            return True
        inner = getattr(part, "ex_iterable", None)
        left += [*getattr(part, "ex_iterables", ()), *([] if inner is None else [inner])]
    return False


def _tell_epoch(loader: Any, epoch: int) -> None:
    """Tells the dataset and the samplers of somebody's loader the epoch, as e.g. a ``DistributedSampler`` wants."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    if isinstance(batch_sampler, PlacedBatches):
        batch_sampler = batch_sampler.batches
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for part in (getattr(loader, "dataset", None), *samplers):
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
