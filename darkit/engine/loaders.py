"""From whatever the user calls data to loaders whose order is a function of (seed, epoch, offset)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from darkit.engine.config import TrainerConfig
from darkit.errors import DataError

_KINDS = (
    "a Dataset, a list of samples, a tuple of tensors, a DataLoader, a LightningDataModule, or a dict with 'train' and "
    "'val'"
)
_NO_DATASETS = (str, bytes, Tensor, tuple, Mapping)


class OrderedSampler(Sampler[int]):
    """A shuffle of a map-style dataset that can be entered anywhere without a replay.

    The order of an epoch is a permutation drawn from (seed, epoch); ranks take every ``world``-th index of it, and all
    ranks the same number, so that none waits for another.

    Args:
        length: Samples in the dataset.
        seed: Seed of the order.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.rank, self.world = 0, 1
        self.workers = torch.Generator()
        self.start(0, 0)

    def start(self, epoch: int, offset: int) -> None:
        """Sets where the next iteration begins: ``offset`` samples of this rank into an epoch."""
        self.epoch = epoch
        self.offset = offset
        self.workers.manual_seed(self._seed_of(epoch) + 1)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed_of(self.epoch))
        order = torch.randperm(self.length, generator=generator)
        mine = order[self.rank :: self.world][: len(self)]
        return iter(mine[self.offset :].tolist())

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, wherever the next iteration begins."""
        return max(1, self.length // self.world)

    def _seed_of(self, epoch: int) -> int:
        return (self.seed * 1_000_003 + epoch * 2) % 2**63


@dataclass
class Loaders:
    """What a run trains and is evaluated on.

    Attributes:
        train: Batches to train on.
        val: Batches to evaluate on, or None.
        order: The order of `train` when it is darkit's, or None when the user brought a loader or an iterable dataset.
    """

    train: Any
    val: Any
    order: OrderedSampler | None


def make_loaders(data: Any, val_data: Any, config: TrainerConfig) -> Loaders:
    """Makes the loaders of a run.

    Args:
        data: A Dataset (map-style or iterable), a list of samples, a tuple of tensors, a DataLoader, a
            LightningDataModule, or a dict with ``train`` and perhaps ``val``.
        val_data: Likewise but for the last two, or None.
        config: Batch size, workers, seed and device.

    Raises:
        DataError: The data is empty or none of these.
    """
    if isinstance(data, LightningDataModule):
        return _from_module(data, val_data, config)
    if isinstance(data, Mapping):
        if "train" not in data:
            raise DataError(
                f"A dict of data needs the key 'train' (and perhaps 'val'), but has {sorted(map(str, data))}."
            )
        data, val_data = data["train"], data.get("val") if val_data is None else val_data
    order = None
    if not isinstance(data, DataLoader):
        dataset = _dataset(data, "training")
        if not isinstance(dataset, IterableDataset):
            order = OrderedSampler(len(dataset), config.seed)
        train = _loader(dataset, config, order)
    else:
        train = data
    _refuse_empty(train, "training")
    return Loaders(train, _validation(val_data, config), order)


def _from_module(data: LightningDataModule, val_data: Any, config: TrainerConfig) -> Loaders:
    data.prepare_data()
    data.setup("fit")
    train = data.train_dataloader()
    _refuse_empty(train, "training")
    if val_data is None and type(data).val_dataloader is not LightningDataModule.val_dataloader:
        val_data = _only_loader(data.val_dataloader())
    return Loaders(train, _validation(val_data, config), None)


def _only_loader(loaders: Any) -> Any:
    """Returns the loader in what a ``val_dataloader`` returned, or None where there is none."""
    if not isinstance(loaders, list | tuple):
        return loaders
    if len(loaders) > 1:
        raise DataError(f"A run is evaluated on one validation loader, but val_dataloader returned {len(loaders)}.")
    return loaders[0] if loaders else None


def _validation(val_data: Any, config: TrainerConfig) -> Any:
    if val_data is None:
        return None
    loader = val_data if isinstance(val_data, DataLoader) else _loader(_dataset(val_data, "validation"), config, None)
    _refuse_empty(loader, "validation")
    return loader


def _dataset(data: Any, purpose: str) -> Any:
    if isinstance(data, tuple) and data and all(isinstance(item, Tensor) for item in data):
        lengths = {len(item) if item.ndim else 0 for item in data}
        if len(lengths) > 1:
            raise DataError(f"The tensors of the {purpose} data must be of one length, but have {sorted(lengths)}.")
        return TensorDataset(*data)
    if isinstance(data, list | IterableDataset):
        return data
    if isinstance(data, Dataset) and not isinstance(data, Sized):
        raise DataError(
            f"The {purpose} data {type(data).__name__} has no length: give it a __len__, or make it an IterableDataset."
        )
    if hasattr(data, "__getitem__") and isinstance(data, Sized) and not isinstance(data, _NO_DATASETS):
        return data
    raise DataError(f"The {purpose} data must be {_KINDS}, not {type(data).__name__}.")


def _loader(dataset: Any, config: TrainerConfig, order: OrderedSampler | None) -> DataLoader[Any]:
    if isinstance(dataset, Sized) and not len(dataset):
        raise DataError(f"The data is empty: the {type(dataset).__name__} has no samples.")
    generator = order.workers if order else torch.Generator().manual_seed(config.seed)
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        sampler=order,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        pin_memory=config.device == "cuda",
        generator=generator,
    )


def _refuse_empty(loader: Any, purpose: str) -> None:
    try:
        empty = len(loader) == 0
    except TypeError:  # an iterable dataset without a length: training sees at its first batch, evaluation much later
        empty = purpose == "validation" and next(iter(loader), loader) is loader
    if empty:
        raise DataError(f"The {purpose} data is empty: its loader has no batches.")
