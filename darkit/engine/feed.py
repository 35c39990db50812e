"""The training data as the engine takes it: it knows where it is, and goes on from where a checkpoint left it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from rich.progress import track
from torch.utils.data import DataLoader, IterableDataset

from darkit.engine.device import generator_states, restore_generators
from darkit.engine.order import BatchOrder

logger = logging.getLogger(__name__)


class Feed:
    """Batches to train on, epoch after epoch.

    Going on from a checkpoint is immediate where the order is darkit's, or where an iterable dataset has ``state_dict``
    and ``load_state_dict`` and no worker processes. Everything else is read forward to the place, with a progress bar
    and a warning.

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
        self._generators: dict[str, Any] | None = None  # as they were when this epoch's iteration began
        self._resumed: Mapping[str, Any] | None = None
        self._restored: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def position(self, epoch: int) -> dict[str, Any]:
        """Tells where the training is, for a checkpoint."""
        place: dict[str, Any] = {"epoch": epoch, "batches": self.batches}
        if self.order is None:
            stateful = self._stateful()
            place |= {"dataset": stateful.state_dict()} if stateful is not None else {"generators": self._generators}
        return place

    def resume(self, position: Mapping[str, Any], generators: dict[str, Any]) -> int:
        """Lets the next iteration go on at a checkpoint's position, with the generators as they were there.

        Returns:
            The epoch in which that is: the next one, if the checkpoint's was complete.
        """
        epoch, self.batches = position["epoch"], position["batches"]
        self._restored = generators
        if self.order is not None and self.batches >= len(self.order):
            epoch, self.batches = epoch + 1, 0
        if self.order is not None:
            self.order.start(epoch, self.batches)
        else:
            _tell_epoch(self.loader, epoch)
            if self.batches or "dataset" in position:
                self._resumed = position
        return int(epoch)

    def next_epoch(self, epoch: int) -> None:
        """Begins an epoch."""
        self.batches = 0
        if self.order is not None:
            self.order.start(epoch, 0)
        else:
            _tell_epoch(self.loader, epoch)

    def __iter__(self) -> Iterator[Any]:
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            if self.order is None:
                self._generators = generator_states()
            batches = iter(self.loader)
        elif "dataset" in resumed and (stateful := self._stateful()) is not None:
            stateful.load_state_dict(resumed["dataset"])
            batches = iter(self.loader)
        else:
            batches = self._read_forward(resumed)
        restored, self._restored = self._restored, None
        if restored is not None:
            restore_generators(restored)
        yield from batches

    def _read_forward(self, position: Mapping[str, Any]) -> Iterator[Any]:
        count = position["batches"]
        logger.warning(
            "Reading %d batches forward to where the checkpoint was: this data cannot be entered in the middle. A "
            "map-style dataset, or an iterable one with state_dict and load_state_dict and num_workers=0, can.",
            count,
        )
        self._generators = position["generators"]
        if self._generators is not None:
            restore_generators(self._generators)
        batches: Iterator[Any] = iter(self.loader)
        for _ in track(islice(batches, count), "reading forward", total=count, transient=True):
            pass
        return batches

    def _stateful(self) -> Any:
        """Returns the iterable dataset if its position can be asked for and set in this process, or None."""
        loader = self.loader
        if not isinstance(loader, DataLoader) or loader.num_workers or not isinstance(loader.dataset, IterableDataset):
            return None
        able = all(hasattr(loader.dataset, name) for name in ("state_dict", "load_state_dict"))
        return loader.dataset if able else None


def _tell_epoch(loader: Any, epoch: int) -> None:
    """Tells the samplers of somebody's loader the epoch, as `torch.utils.data.distributed.DistributedSampler` wants."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)):
        set_epoch = getattr(sampler, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
