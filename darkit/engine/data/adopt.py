"""DataLoaders of users, rebuilt so that training can start at any batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.data.order import BatchOrder, PlacedBatches, SeededDataset
from darkit.engine.data.ranks import kept_settings
from darkit.engine.data.workers import begin, shield_workers
from darkit.errors import DataError


def adopt(loader: DataLoader[Any], config: TrainerConfig) -> Feed:
    """Make the feed of a user's loader.

    A plain loader, shuffled by torch or not at all, is rebuilt with darkit's order and its other settings. Any other
    loader is used as it is.
    """
    refuse_empty(loader, "training")
    shuffle = known_order(loader)
    if shuffle is None:
        return Feed(with_places(loader, config))
    order = BatchOrder(
        len(loader.dataset),  # type: ignore[arg-type]
        loader.batch_size or 1,
        config.seed,
        shuffle=shuffle,
        drop_last=loader.drop_last,
    )
    return ordered_feed(loader.dataset, order, loader.num_workers, config, kept_settings(loader))


def ordered_feed(
    dataset: Any, order: BatchOrder, workers: int, config: TrainerConfig, settings: Mapping[str, Any]
) -> Feed:
    """Make the feed of a map-style dataset in darkit's order. Raises `DataError`."""
    if order.length < config.process_count():
        raise DataError(
            f"A {type(dataset).__name__} of {order.length} samples is too small for {config.process_count()} devices: "
            "each needs at least one."
        )
    loader: DataLoader[Any] = DataLoader(
        SeededDataset(dataset) if workers else dataset,
        batch_sampler=order,
        generator=torch.Generator().manual_seed(config.seed % 2**63),  # so that epochs do not use torch's global one
        num_workers=workers,
        **{"pin_memory": config.device == "cuda", "persistent_workers": workers > 0, **settings},
    )
    order.accumulation = config.gradient_accumulation_steps
    return Feed(loader, order)


def with_places(loader: Any, config: TrainerConfig) -> Any:
    """Seed a plain loader's workers by batch, so that random samples depend only on the position."""
    plain = type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset)
    if not plain or not loader.num_workers or loader.batch_sampler is None:
        return loader
    return DataLoader(
        SeededDataset(loader.dataset),
        batch_sampler=PlacedBatches(loader.batch_sampler, config.seed),
        num_workers=loader.num_workers,
        generator=torch.Generator(),  # for the initial seeds of workers, which no sample depends on
        in_order=loader.in_order,
        **kept_settings(loader),
    )


def known_order(loader: DataLoader[Any]) -> bool | None:
    """Return whether a plain loader shuffles; None for a loader with custom batches."""
    sampler: Any = loader.sampler
    batches: Any = loader.batch_sampler
    dataset: Any = loader.dataset
    plain = type(loader) is DataLoader and type(batches) is BatchSampler and loader.generator is None
    if not plain or loader.batch_size is None or not loader.in_order:
        return None
    own = (sampler, loader.batch_size, loader.drop_last)
    if (batches.sampler, batches.batch_size, batches.drop_last) != own:
        return None
    if type(sampler) is SequentialSampler:
        source = sampler.data_source
        whole = source is dataset or (type(source) is range and len(source) == len(dataset))
        return False if whole else None
    if type(sampler) is not RandomSampler or sampler.data_source is not dataset:
        return None
    drawn = sampler.replacement or sampler._num_samples is not None or sampler.generator is not None
    return None if drawn else True


def refuse_empty(loader: Any, purpose: str) -> None:
    """Refuse a loader without batches. Raises `DataError`."""
    try:
        empty = len(loader) == 0
    except TypeError:  # no length: training fails at its first batch, evaluation much later
        shield_workers(loader)  # before persistent workers start
        empty = purpose == "validation" and next(begin(loader), loader) is loader
    if empty:
        raise DataError(f"The {purpose} data is empty: its loader has no batches.")
