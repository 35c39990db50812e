"""Warnings, before the first step, about everything that a resume would not repeat bit for bit."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, default_collate
from torch.utils.data.distributed import DistributedSampler

from darkit.engine.config import TrainerConfig
from darkit.engine.data.held import generators_of, is_in_dataset, parts_of
from darkit.engine.data.loaders import Loaders
from darkit.engine.data.order import PlacedSampler
from darkit.errors import ReproductionWarning


def warn_of_inexactness(loaders: Loaders, config: TrainerConfig) -> None:
    """Give one `ReproductionWarning` for each thing that makes resuming inexact, as far as it can be known."""
    for sentence in reasons(loaders, config):
        warnings.warn(sentence, ReproductionWarning, stacklevel=3)


def reasons(loaders: Loaders, config: TrainerConfig) -> Iterator[str]:
    """Yield a sentence for each thing that makes this run inexact."""
    for loader, purpose in ((loaders.train.loader, "training"), (loaders.val, "validation")):
        if isinstance(loader, DataLoader):
            yield from _of_loader(loader, purpose)
    if loaders.train.order is None and config.device_num > 1 and not _is_divided(loaders.train.loader):
        yield (
            f"Each of the {config.device_num} processes reads all of the training data, for darkit cannot divide "
            "somebody's sampler: use a DistributedSampler, or give the dataset itself."
        )
    if config.compile and not has_few_shapes(loaders):
        yield (
            "compile=True with batches of several shapes compiles them as they come: a resumed run may differ in the "
            "last bits. Batches of one shape, of a dataset without its own collate_fn, do not."
        )


def has_few_shapes(loaders: Loaders) -> bool:
    """Return whether the batches are full or the last of an epoch, and of one shape else.

    So it is where torch collates what darkit has put in order. `torch.compile` can then make a kernel for each shape,
    which depends on no batch before. Other data may have any number of shapes, of which it takes few.
    """
    collates = [
        getattr(loader, "collate_fn", None) for loader in (loaders.train.loader, loaders.val) if loader is not None
    ]
    return loaders.train.order is not None and all(collate is default_collate for collate in collates)


def _of_loader(loader: DataLoader[Any], purpose: str) -> Iterator[str]:
    placed = isinstance(loader.batch_sampler, PlacedSampler)
    if loader.num_workers and not loader.in_order:
        yield (
            f"The {purpose} loader has in_order=False: its batches come as workers finish them, in another order each "
            "time. Use in_order=True for runs that can be repeated."
        )
    if loader.num_workers and loader.persistent_workers and not placed:
        yield (
            f"The {purpose} loader has persistent_workers=True: what its workers keep from one pass to the next, such "
            "as their random numbers, is lost when the run is resumed. Use persistent_workers=False to resume exactly."
        )
    for name, part in parts_of(loader):
        inside = is_in_dataset(name)
        if inside and loader.num_workers:
            for key, _ in generators_of(part):
                yield (
                    f"Each worker process has its own copy of the generator {type(part).__name__}.{key}, whose state "
                    "is not saved: draw from the global generators of torch, numpy or random instead, which darkit "
                    "seeds for each batch."
                )
        if not inside:
            for key, value in getattr(part, "__dict__", {}).items():
                if isinstance(value, Iterator) and part is not loader:
                    yield (
                        f"{type(part).__name__}.{key} is a {type(value).__name__}, whose place cannot be saved: a "
                        "resume after the first epoch continues with other data. Make a new iterator in __iter__."
                    )
                elif isinstance(value, random.SystemRandom):
                    yield f"{type(part).__name__}.{key} draws from the system, so the {purpose} data is never the same."


def _is_divided(loader: Any) -> bool:
    """Return whether each process reads its own part of somebody's data."""
    parts = [part for _, part in parts_of(loader)]
    return any(isinstance(part, DistributedSampler) or callable(getattr(part, "set_rank", None)) for part in parts)
