"""Warnings, before the first step, about data that cannot be resumed bit for bit."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, default_collate

from darkit.engine.config import TrainerConfig
from darkit.engine.data.loader_state import generators_of, is_in_dataset, parts_of
from darkit.engine.data.loaders import Loaders
from darkit.engine.data.order import PlacedSampler
from darkit.errors import ReproductionWarning


def warn_of_inexactness(loaders: Loaders, config: TrainerConfig) -> None:
    """Give one `ReproductionWarning` for each known reason why resuming is inexact."""
    for sentence in reasons(loaders, config):
        warnings.warn(sentence, ReproductionWarning, stacklevel=3)


def reasons(loaders: Loaders, config: TrainerConfig) -> Iterator[str]:
    """Yield one sentence for each reason."""
    for loader, purpose in ((loaders.train.loader, "training"), (loaders.val, "validation")):
        if isinstance(loader, DataLoader):
            yield from _of_loader(loader, purpose)
    if config.compile and not has_few_shapes(loaders):
        yield (
            "compile=True recompiles for batches of new shapes, so a resumed run may differ in the last bits. To avoid "
            "this, use a dataset of equal shapes without its own collate_fn."
        )


def has_few_shapes(loaders: Loaders) -> bool:
    """Return whether all batches have the same shape, except for the last of an epoch.

    This is the case for torch's own collation of data in darkit's order. `torch.compile` can then make a kernel for
    each shape, independent of earlier batches. For data of many shapes it stops after a few.
    """
    collates = [
        getattr(loader, "collate_fn", None) for loader in (loaders.train.loader, loaders.val) if loader is not None
    ]
    return loaders.train.order is not None and all(collate is default_collate for collate in collates)


def _of_loader(loader: DataLoader[Any], purpose: str) -> Iterator[str]:
    placed = isinstance(loader.batch_sampler, PlacedSampler)
    if loader.num_workers and not loader.in_order:
        yield (
            f"The {purpose} loader has in_order=False: batches arrive as workers finish them, so their order varies. "
            "Use in_order=True for reproducible runs."
        )
    if loader.num_workers and loader.persistent_workers and not placed:
        yield (
            f"The {purpose} loader has persistent_workers=True: state that its workers keep between epochs, such as "
            "random generators, is lost on resume. Use persistent_workers=False to resume exactly."
        )
    for name, part in parts_of(loader):
        inside = is_in_dataset(name)
        if inside and loader.num_workers:
            for key, _ in generators_of(part):
                yield (
                    f"Each worker process has its own copy of the generator {type(part).__name__}.{key}, and its state "
                    "is not saved. Use the global generators of torch, numpy or random, which darkit seeds for each "
                    "batch."
                )
        if not inside:
            for key, value in getattr(part, "__dict__", {}).items():
                if isinstance(value, Iterator) and part is not loader:
                    yield (
                        f"{type(part).__name__}.{key} is a {type(value).__name__}, whose position cannot be saved: a "
                        "resume after the first epoch continues with other data. Make a new iterator in __iter__."
                    )
                elif isinstance(value, random.SystemRandom):
                    yield f"{type(part).__name__}.{key} uses system randomness: the {purpose} data is not reproducible."
