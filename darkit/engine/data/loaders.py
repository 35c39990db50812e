"""Loaders for all supported kinds of data."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from darkit.engine.config import TrainerConfig
from darkit.engine.data.adopt import adopt, ordered_feed, refuse_empty, with_places
from darkit.engine.data.arrays import as_dataset, holds_arrays
from darkit.engine.data.feed import Feed
from darkit.engine.data.order import BatchOrder
from darkit.engine.data.shards import divisible
from darkit.engine.data.stateful import StatefulLoader
from darkit.engine.data.workers import shield_workers, unshield_workers
from darkit.errors import DataError

logger = logging.getLogger(__name__)
_KINDS = (
    "a Dataset, a list of samples, a tensor or array, a tuple or dict of them, a DataLoader, a LightningDataModule, or "
    "a dict with 'train' and 'val'"
)
VALIDATION = ("val", "valid", "validation", "dev", "eval")
"""Names of validation data in a dict of data; the third is Hugging Face's."""
_NO_DATASETS = (str, bytes, Tensor, tuple, Mapping)


@dataclass
class Loaders:
    """The training and validation data of a run.

    Attributes:
        train: Training batches.
        val: Validation batches, or None.
        dataset: The training dataset, or None if unknown.
    """

    train: Feed
    val: Any
    dataset: Any

    def __post_init__(self) -> None:
        shield_workers(self.train.loader)
        shield_workers(self.val)

    def close(self) -> None:
        """Release the data and end its worker processes."""
        unshield_workers(self.train.loader)
        unshield_workers(self.val)
        self.train.close()
        self.val = None


def make_loaders(
    data: Any,
    val_data: Any,
    config: TrainerConfig,
    prepare: Callable[[LightningDataModule], None] = operator.methodcaller("prepare_data"),
) -> Loaders:
    """Make the loaders of a run.

    Args:
        data: As in `darkit.fit`. A dataset's own ``collate_fn`` is used.
        val_data: The same except for a LightningDataModule and a dict with ``train``, or None.
        config: Batch size, workers, seed and device.
        prepare: Calls ``prepare_data`` of a LightningDataModule where it must be called.

    Raises:
        DataError: The data is empty or of an unknown kind.
    """
    if isinstance(data, LightningDataModule):
        prepare(data)
        return _from_module(data, val_data, config)
    if isinstance(data, Mapping) and not (holds_arrays(data) and "train" not in data):
        if "train" not in data:
            raise DataError(
                f"A dict of data needs the key 'train' (and optionally 'val'), but has {sorted(map(str, data))}."
            )
        data, val_data = data["train"], validation_of(data) if val_data is None else val_data
    if isinstance(data, StatefulLoader):
        return Loaders(data.feed, make_validation(val_data, config), data.feed.loader.dataset)
    if isinstance(data, DataLoader):
        return Loaders(adopt(data, config), make_validation(val_data, config), data.dataset)
    dataset = _dataset(data, "training")
    feed = _feed(dataset, "training", config)
    refuse_empty(feed, "training")
    return Loaders(feed, make_validation(val_data, config), dataset)


def validation_of(data: Mapping[Any, Any]) -> Any:
    """Return the validation data of a dict.

    Raises:
        DataError: Several keys have validation data.
    """
    names = [name for name in VALIDATION if data.get(name) is not None]
    if len(names) > 1:
        raise DataError(f"The data has validation data under {' and '.join(map(repr, names))}: keep one of them.")
    unused = sorted(str(name) for name in data if name not in ("train", *VALIDATION))
    if unused and not names:
        logger.warning(
            "The data has no 'val' or 'validation', and %s is not used, so the run has no validation. Give val_data to "
            "validate it.",
            ", ".join(map(repr, unused)),
        )
    return data[names[0]] if names else None


def _from_module(data: LightningDataModule, val_data: Any, config: TrainerConfig) -> Loaders:
    data.setup("fit")
    train = data.train_dataloader()
    if isinstance(train, CombinedLoader | Mapping | list | tuple):
        raise DataError(
            f"A run needs a single training loader, but train_dataloader of {type(data).__name__} returned a "
            f"{type(train).__name__}. Combine the datasets in one Dataset."
        )
    if val_data is None and type(data).val_dataloader is not LightningDataModule.val_dataloader:
        val_data = _only_loader(data.val_dataloader())
    if isinstance(train, DataLoader):
        return Loaders(adopt(train, config), make_validation(val_data, config), train.dataset)
    refuse_empty(train, "training")
    return Loaders(Feed(train), make_validation(val_data, config), None)


def _only_loader(loaders: Any) -> Any:
    """Return the single loader of a ``val_dataloader`` result, or None."""
    if not isinstance(loaders, list | tuple):
        return loaders
    if len(loaders) > 1:
        raise DataError(f"A run needs a single validation loader, but val_dataloader returned {len(loaders)}.")
    return loaders[0] if loaders else None


def make_validation(val_data: Any, config: TrainerConfig) -> Any:
    """Make the validation loader of a run; None without data. Raises `DataError`."""
    if val_data is None:
        return None
    if isinstance(val_data, StatefulLoader):
        loader = val_data.feed.loader
    elif isinstance(val_data, DataLoader):
        loader = with_places(val_data, config)
    else:
        loader = _feed(_dataset(val_data, "validation"), "validation", config).loader
    refuse_empty(loader, "validation")
    return divisible(loader, config)


def _dataset(data: Any, purpose: str) -> Any:
    if holds_arrays(data):
        return as_dataset(data, purpose)
    if isinstance(data, list | tuple | Mapping) and _holds_loaders(data):
        raise DataError(
            f"A run needs a single {purpose} loader, but the data is a {type(data).__name__} of {len(data)}: combine "
            "the datasets in one Dataset."
        )
    if isinstance(data, list | IterableDataset):
        return data
    if type(data).__module__.startswith("datasets.") and (getattr(data, "format", None) or {}).get("type") is None:
        return data.with_format("torch")  # Hugging Face rows of python lists would not be collated
    if isinstance(data, Dataset) and not isinstance(data, Sized):
        raise DataError(
            f"The {purpose} data {type(data).__name__} has no length: give it a __len__, or make it an IterableDataset."
        )
    if hasattr(data, "__getitem__") and isinstance(data, Sized) and not isinstance(data, _NO_DATASETS):
        return data
    raise DataError(f"The {purpose} data must be {_KINDS}, not {type(data).__name__}.")


def _holds_loaders(data: Any) -> bool:
    items = data.values() if isinstance(data, Mapping) else data
    return any(isinstance(item, DataLoader) for item in items)


def _feed(dataset: Any, purpose: str, config: TrainerConfig) -> Feed:
    """Make the feed of a dataset: shuffled for the training, unless it is iterable."""
    with suppress(TypeError):  # a ChainDataset of datasets without a length
        if isinstance(dataset, Sized) and len(dataset) == 0:
            raise DataError(f"The {purpose} data is empty: the {type(dataset).__name__} has no samples.")
    collate = own_collate(dataset)
    settings = {} if collate is None else {"collate_fn": collate}
    if not isinstance(dataset, IterableDataset):
        order = BatchOrder(len(dataset), config.batch_size, config.seed, shuffle=purpose == "training")
        return ordered_feed(dataset, order, config.num_workers, config, settings)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        pin_memory=config.device == "cuda",
        # its workers restart each epoch, so their random numbers depend on the epoch only
        generator=torch.Generator().manual_seed(config.seed % 2**63),
        **settings,
    )
    return Feed(loader)


def own_collate(dataset: Any) -> Any:
    """Return a dataset's own ``collate_fn``, or None. A `torch.utils.data.Subset` has that of its dataset."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    found = getattr(dataset, "collate_fn", None)
    return found if callable(found) else None
