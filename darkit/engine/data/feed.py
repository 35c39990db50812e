"""Training batches with a position that can be saved and restored."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from darkit.engine.data.batches import OwnBatches, own_batches
from darkit.engine.data.loader_state import LoaderState
from darkit.engine.data.order import BatchOrder, PlacedBatches, PlacedSampler, refuse_early_end
from darkit.engine.data.ranks import Agreement, divide, ends_together, is_hugging_face, refuse_ranked, refuse_repeated
from darkit.engine.data.samples import collating
from darkit.engine.data.workers import begin, end, shield_workers, unshield_workers
from darkit.engine.device import generator_states, restore_generators

logger = logging.getLogger(__name__)


class Feed:
    """Batches to train on, epoch after epoch.

    Resuming is immediate for data in darkit's order, for a custom batch sampler with worker processes, and for an
    iterable dataset that has ``state_dict`` and ``load_state_dict`` and no worker processes. Other data is read again
    up to the position, with a progress bar and a warning.

    Data that darkit does not order uses a separate state of torch's generator, so reading it again draws the same
    numbers whatever the model draws.

    Iterable datasets and samplers with ``set_rank(rank, world_size)`` or ``set_epoch(epoch)`` get these calls, and a
    Hugging Face stream is split by rank. With several processes an epoch of such data ends when the first of them has
    no batch left; see `darkit.engine.data.ranks`.

    Args:
        loader: A DataLoader or any iterable of batches.
        order: The loader's order, if it is darkit's.

    Attributes:
        batches: Batches of this epoch used so far; the training loop counts them.
    """

    def __init__(self, loader: Any, order: BatchOrder | None = None) -> None:
        self.loader = loader
        self.order = order
        self.batches = 0
        own = getattr(loader, "batch_sampler", None)
        self._placed = own if isinstance(own, PlacedSampler) else None  # darkit's order, or a custom one with places
        self._place = (0, 1)
        self._agreement: Agreement | None = None
        self._has_leftover = False  # of the epoch before, which ended with another process
        self._watch()
        self._epoch = 0
        self._drawn = 0  # batches of this epoch that were requested
        self._torch: Tensor | None = None  # the state of torch's generator for this data
        self._start: dict[str, Any] | None = None  # the state at the start of this epoch
        self._mark: dict[str, Any] = {"epoch": 0, "batches": 0, "start": None}
        self._batches: Iterator[Any] = iter(())
        self._resumed: Mapping[str, Any] | None = None
        self._restored: dict[str, Any] | None = None

    def _watch(self) -> None:
        self._stateful = None if self.order is not None else stateful_dataset(self.loader)
        watched = self.loader
        if self.order is not None:  # the dataset, if this process loads the samples
            watched = () if self.loader.num_workers else self.loader.dataset
        self._held = LoaderState(watched, without=self._stateful)

    def __len__(self) -> int:
        if self._stateful is not None:
            raise TypeError("Iterable datasets with a state have no length: only their end starts the next epoch.")
        if self._must_agree:
            raise TypeError("Several processes know only at its end how long an epoch of this data is.")
        return len(self.loader)

    @property
    def _must_agree(self) -> bool:
        return self._place[1] > 1 and self.order is None and not ends_together(self.loader)

    @property
    def has_workers(self) -> bool:
        """Whether worker processes load the data."""
        return bool(getattr(self.loader, "num_workers", 0))

    def share(self, rank: int, world_size: int, *, even: bool = False) -> None:
        """Select the part of the data that this process reads.

        Args:
            rank: The rank of this process.
            world_size: The number of processes.
            even: Whether the training cannot weight its batches; see `darkit.engine.data.order.BatchOrder`.

        Raises:
            DataError: Several processes would read the same samples.
        """
        if self._placed is not None:
            self._placed.rank, self._placed.world = rank, world_size
        if self.order is not None:
            refuse_ranked(self.loader.dataset, world_size)
            self.order.even = even
            return
        if (rank, world_size) == self._place:
            return
        refuse_repeated(self.loader, rank, world_size)
        self._place = (rank, world_size)
        divided = divide(self.loader, rank, world_size)
        if divided is not self.loader:
            unshield_workers(self.loader)
            shield_workers(divided)
            self.loader = divided
            self._watch()

    def batches_of_step(self, number: int) -> int | None:
        """Return the batches of this process in the optimizer step of a batch; None if each step has the same."""
        return self.order.parts_at(number) if self.order is not None and self.order.total is not None else None

    def is_filler(self, number: int) -> bool:
        """Return whether a batch must not count, because this process has no samples left for it."""
        return self.order is not None and not self.order.even and self.order.is_filler(number)

    def mark(self) -> None:
        """Record the position; called after every optimizer step."""
        if self.order is None and not self.batches:  # between two epochs
            self._start = self._now()
        self._mark = {"epoch": self._epoch, "batches": self.batches, "start": self._start}
        if self.order is not None and self._held.has_generators():
            self._mark["held"] = self._held.state()

    def position(self, *, interrupted: bool = False) -> dict[str, Any]:
        """Return the position at the last `mark`, for a checkpoint.

        Args:
            interrupted: Whether an error interrupted the next batch; the current state of the data is then not used.
        """
        mark = self._mark
        place = {key: mark[key] for key in ("epoch", "batches")}
        if self.order is not None:
            if not self.order.even:
                place |= self.order.place(place["batches"])
            return place | ({"held": mark["held"]} if "held" in mark else {})
        taken = self._drawn == mark["batches"] and self._epoch == mark["epoch"]
        if self._stateful is None or interrupted or not taken:  # a batch drawn since is not in the weights
            return place | {"start": mark["start"]}
        fetcher = getattr(self._batches, "_dataset_fetcher", None)
        here = {
            "dataset": self._stateful.state_dict(),
            "ended": bool(getattr(fetcher, "ended", False)),  # with a partial last batch
            "held": self._held.state(),
            **({} if self._torch is None else {"torch": self._torch}),
        }
        if self._torch is not None:
            self._start = mark["start"] = generator_states() | copy.deepcopy(here) | {"batches": mark["batches"]}
        return place | here

    def resume(self, position: Mapping[str, Any], generators: dict[str, Any] | None) -> None:
        """Start the next iteration at a checkpoint's position, with its generator states, if any."""
        self._epoch, self.batches = position["epoch"], position["batches"]
        if self.order is not None and "samples" in position:  # in another number of batches on other processes
            self.batches = self.order.batch_after(position["samples"])
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
        """Start an epoch."""
        self._epoch, self.batches, self._drawn = epoch, 0, 0
        if self._placed is not None:
            self._placed.start(epoch, 0)

    def __iter__(self) -> Iterator[Any]:
        resumed, self._resumed = self._resumed, None
        restored, self._restored = self._restored, None
        if self.order is not None:
            batches = own_batches(self.loader) or begin(self.loader)  # which uses its own generator
        elif resumed is None:
            batches = self._begin()
        else:
            if restored is not None:
                restore_generators(restored)
            batches = self._resume(resumed)
        if restored is not None and (resumed is None or resumed["batches"]):
            restore_generators(restored)
        self._batches = batches
        self._drawn = self.batches
        del batches  # so that `close` drops the last reference
        if self._must_agree and self._agreement is None:
            self._agreement = Agreement(self.loader)
        with collating("training"):
            if isinstance(self._batches, OwnBatches):
                yield from self._batches
                return
            while True:
                self._drawn += 1
                try:
                    with nullcontext() if self.order is not None else self._drawing():
                        batch = next(self._batches)
                except StopIteration:
                    if self._agreement is not None:
                        self._agreement.all_have(False)
                    refuse_early_end(self.order, self._drawn - 1)
                    self._has_leftover = False
                    return
                if self._agreement is not None and not self._agreement.all_have(True):
                    self._leave()
                    return
                yield batch

    def _leave(self) -> None:
        """End an epoch in which this process has batches left, so that its data starts the next one as on the others.

        A Hugging Face stream does so by itself. Other data may start where it was left, and is read to its end.
        """
        self._has_leftover = is_hugging_face(getattr(self.loader, "dataset", None))
        if self._has_leftover:
            end(self._batches)
            return
        with self._drawing():
            for _ in self._batches:
                pass

    def close(self) -> None:
        """Release the data and end its worker processes.

        Left to garbage collection, each worker would delay the process by five seconds.
        """
        end(self._batches)
        self._batches, self.loader = iter(()), ()
        self._stateful = self._placed = None
        self._held = LoaderState(())

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Use this data's own state of torch's generator in a block."""
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
        _set_epoch(self.loader, self._epoch)
        with self._drawing():
            return begin(self.loader)

    def _now(self) -> dict[str, Any]:
        """Return the state from which this epoch can be read again."""
        now: dict[str, Any] = {"batches": self.batches, "held": self._held.state()}
        is_new = not self._epoch and not self.batches  # a new dataset may have no state yet
        if self._stateful is not None and not is_new and not self._has_leftover:
            now["dataset"] = self._stateful.state_dict()
        with self._drawing():
            return now | generator_states()

    def _resume(self, position: Mapping[str, Any]) -> Iterator[Any]:
        """Resume data that darkit does not order."""
        start = position.get("start")
        if self._stateful is not None and "dataset" in position:
            return self._enter(position, position["batches"])
        if start is None:
            self._held.restore(position.get("own_generators"))
            batches = self._begin()
            self._read_again(batches, position["batches"])
            return batches
        if position["batches"]:
            restore_generators(start)
        batches = self._enter(start, start.get("batches", 0))
        self._start = dict(start)
        self._read_again(batches, position["batches"] - start.get("batches", 0))
        return batches

    def _enter(self, place: Mapping[str, Any], taken: int) -> Iterator[Any]:
        """Start after ``taken`` batches of the epoch, which the dataset's state includes."""
        held = place.get("held", place.get("own_generators", place.get("own")))
        drawn_from = place.get("torch")
        if drawn_from is None and taken:  # an older checkpoint: data and model shared a generator
            drawn_from = torch.get_rng_state()
        self._torch = None if drawn_from is None else drawn_from.cpu()
        self._held.restore(held)
        if self._stateful is not None and "dataset" in place:
            self._stateful.load_state_dict(place["dataset"])
        if taken and place.get("ended"):  # the dataset's state is already that of the next epoch
            self._start = self._now() | {"ended": True}
            return iter(())
        batches = self._begin()
        if self._start is not None and "dataset" in place:
            self._start["dataset"] = place["dataset"]
        if taken:  # starting draws numbers that were drawn before
            self._torch = drawn_from
            self._held.restore(held)
        return batches

    def _read_again(self, batches: Iterator[Any], count: int) -> None:
        if not count or self._placed is not None:  # its sampler skips them
            return
        logger.warning(
            "Reading %d batches again to reach the checkpoint's position: this data has no random access. Use a "
            "map-style dataset, or an iterable one with state_dict, load_state_dict and num_workers=0, to avoid this.",
            count,
        )
        with self._drawing():
            for _ in track(islice(batches, count), "reading again", total=count, transient=True):
                pass


def stateful_dataset(loader: Any) -> Any:
    """Return a loader's iterable dataset if this process can save and load its state, else None.

    Hugging Face streams with a shuffle buffer are excluded: their ``state_dict`` lacks the buffer.
    """
    if type(loader) is not DataLoader or loader.num_workers or not isinstance(loader.dataset, IterableDataset):
        return None
    dataset = loader.dataset
    able = all(callable(getattr(dataset, name, None)) for name in ("state_dict", "load_state_dict"))
    return dataset if able and not has_shuffle_buffer(dataset) else None


def has_shuffle_buffer(dataset: Any) -> bool:
    """Return whether a Hugging Face stream has a shuffle buffer, as after ``shuffle(buffer_size=...)``."""
    if type(dataset).__module__.partition(".")[0] != "datasets":
        return False
    left = [getattr(dataset, "_ex_iterable", None)]
    while left:
        part = left.pop()
        if part is None or getattr(part, "buffer_size", 1) > 1:  # None: another version of datasets
            return True
        inner = getattr(part, "ex_iterable", None)
        left += [*getattr(part, "ex_iterables", ()), *([] if inner is None else [inner])]
    return False


def _set_epoch(loader: Any, epoch: int) -> None:
    """Call ``set_epoch`` of a loader's dataset and samplers, such as a ``DistributedSampler``."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    if isinstance(batch_sampler, PlacedBatches):
        batch_sampler = batch_sampler.batches
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for part in (getattr(loader, "dataset", None), *samplers):
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
