"""From whatever the user calls data to what is trained and evaluated on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from darkit.engine.config import TrainerConfig
from darkit.engine.data.arrays import as_dataset, holds_arrays
from darkit.engine.data.feed import Feed
from darkit.engine.data.order import BatchOrder, PlacedBatches, SeededDataset
from darkit.engine.data.workers import begin, make_polite, undo_polite
from darkit.errors import DataError

logger = logging.getLogger(__name__)
_KINDS = (
    "a Dataset, a list of samples, a tensor or array, a tuple or dict of them, a DataLoader, a LightningDataModule, or "
    "a dict with 'train' and 'val'"
)
_KEPT = ("collate_fn", "pin_memory", "timeout", "worker_init_fn")  # of a loader that is made again
_KEPT_WITH_WORKERS = ("prefetch_factor", "multiprocessing_context", "persistent_workers")
_VAL_NAMES = ("val", "valid", "validation", "dev", "eval")  # the third is Hugging Face's
_NO_DATASETS = (str, bytes, Tensor, tuple, Mapping)


@dataclass
class Loaders:
    """What a run trains and is evaluated on.

    Attributes:
        train: Batches to train on.
        val: Batches to evaluate on, or None.
        dataset: What the training samples are taken from, or None where that cannot be known.
    """

    train: Feed
    val: Any
    dataset: Any

    def __post_init__(self) -> None:
        make_polite(self.train.loader)
        make_polite(self.val)

    def close(self) -> None:
        """Lets go of the data, so that worker processes that darkit has started end."""
        undo_polite(self.train.loader)
        undo_polite(self.val)
        self.train.close()
        self.val = None


def make_loaders(data: Any, val_data: Any, config: TrainerConfig) -> Loaders:
    """Makes the loaders of a run.

    Args:
        data: A Dataset (map-style or iterable), a list of samples, a tensor or array, a tuple or dict of them, a
            DataLoader, a LightningDataModule, or a dict with ``train`` and perhaps ``val``. A dataset's own
            ``collate_fn`` makes its batches.
        val_data: Likewise but for the last two, or None.
        config: Batch size, workers, seed and device.

    Raises:
        DataError: The data is empty or none of these.
    """
    if isinstance(data, LightningDataModule):
        return _from_module(data, val_data, config)
    if isinstance(data, Mapping) and not (holds_arrays(data) and "train" not in data):
        if "train" not in data:
            raise DataError(
                f"A dict of data needs the key 'train' (and perhaps 'val'), but has {sorted(map(str, data))}."
            )
        data, val_data = data["train"], _val_of(data) if val_data is None else val_data
    if isinstance(data, DataLoader):
        return Loaders(_adopt(data, config), _validation(val_data, config), data.dataset)
    dataset = _dataset(data, "training")
    if _is_empty(dataset):
        raise DataError(f"The training data is empty: the {type(dataset).__name__} has no samples.")
    if isinstance(dataset, IterableDataset):
        feed = Feed(_loader(dataset, config))
    else:
        order = BatchOrder(len(dataset), config.batch_size, config.seed)
        feed = _ordered(dataset, order, config.num_workers, config, _collating(dataset))
    _refuse_empty(feed, "training")
    return Loaders(feed, _validation(val_data, config), dataset)


def _val_of(data: Mapping[Any, Any]) -> Any:
    """Returns the validation data of a dict, under its one usual name.

    Raises:
        DataError: It is there under two names.
    """
    names = [name for name in _VAL_NAMES if data.get(name) is not None]
    if len(names) > 1:
        raise DataError(f"The data has validation data under {' and '.join(map(repr, names))}: keep one of them.")
    unused = sorted(str(name) for name in data if name not in ("train", *_VAL_NAMES))
    if unused and not names:
        logger.warning(
            "The data has no 'val' or 'validation', and %s is not used: the run is not evaluated. Give val_data to "
            "evaluate it.",
            ", ".join(map(repr, unused)),
        )
    return data[names[0]] if names else None


def _is_empty(dataset: Any) -> bool:
    try:
        return isinstance(dataset, Sized) and len(dataset) == 0
    except TypeError:  # a ChainDataset of datasets without a length
        return False


def _ordered(dataset: Any, order: BatchOrder, workers: int, config: TrainerConfig, settings: Mapping[str, Any]) -> Feed:
    """Makes the feed of a map-style dataset in darkit's order. Raises `DataError`."""
    if order.length < config.device_num:
        raise DataError(
            f"A {type(dataset).__name__} of {order.length} samples is too small for {config.device_num} devices: each "
            "needs one at least."
        )
    loader: DataLoader[Any] = DataLoader(
        SeededDataset(dataset) if workers else dataset,
        batch_sampler=order,
        generator=torch.Generator().manual_seed(config.seed % 2**63),  # else beginning an epoch draws from torch's
        num_workers=workers,
        **{"pin_memory": config.device == "cuda", "persistent_workers": workers > 0, **settings},
    )
    return Feed(loader, order)


def _adopt(loader: DataLoader[Any], config: TrainerConfig) -> Feed:
    """Makes the feed of somebody's loader.

    One whose order is what torch's own shuffling, or none, makes of the dataset is made again in an order that can be
    entered anywhere; everything else of it is kept. Any other loader is kept whole.
    """
    _refuse_empty(loader, "training")
    shuffle = _known_order(loader)
    if shuffle is None:
        return Feed(_place(loader, config))
    order = BatchOrder(
        len(loader.dataset),  # type: ignore[arg-type]
        loader.batch_size or 1,
        config.seed,
        shuffle=shuffle,
        drop_last=loader.drop_last,
    )
    return _ordered(loader.dataset, order, loader.num_workers, config, _kept_settings(loader))


def _known_order(loader: DataLoader[Any]) -> bool | None:
    """Returns whether a loader shuffles its whole dataset; None where its batches may be anything else."""
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


def _place(loader: Any, config: TrainerConfig) -> Any:
    """Gives the batches of a plain loader with workers their place, so that what workers draw depends on that alone."""
    plain = type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset)
    if not plain or not loader.num_workers or loader.batch_sampler is None:
        return loader
    return DataLoader(
        SeededDataset(loader.dataset),
        batch_sampler=PlacedBatches(loader.batch_sampler, config.seed),
        num_workers=loader.num_workers,
        generator=torch.Generator(),  # for what the workers begin with, which no sample depends on
        in_order=loader.in_order,
        **_kept_settings(loader),
    )


def _kept_settings(loader: DataLoader[Any]) -> dict[str, Any]:
    names = (*_KEPT, *(_KEPT_WITH_WORKERS if loader.num_workers else ()))
    return {name: getattr(loader, name) for name in names}


def _from_module(data: LightningDataModule, val_data: Any, config: TrainerConfig) -> Loaders:
    data.prepare_data()
    data.setup("fit")
    train = data.train_dataloader()
    if isinstance(train, CombinedLoader | Mapping | list | tuple):
        raise DataError(
            f"A run is trained on one loader, but train_dataloader of {type(data).__name__} returned a "
            f"{type(train).__name__}. Combine the datasets in one Dataset."
        )
    if val_data is None and type(data).val_dataloader is not LightningDataModule.val_dataloader:
        val_data = _only_loader(data.val_dataloader())
    if isinstance(train, DataLoader):
        return Loaders(_adopt(train, config), _validation(val_data, config), train.dataset)
    _refuse_empty(train, "training")
    return Loaders(Feed(train), _validation(val_data, config), None)


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
    if isinstance(val_data, DataLoader):
        loader = _place(val_data, config)
    else:
        dataset = _dataset(val_data, "validation")
        if _is_empty(dataset):
            raise DataError(f"The validation data is empty: the {type(dataset).__name__} has no samples.")
        if isinstance(dataset, IterableDataset):
            loader = _loader(dataset, config)
        else:
            order = BatchOrder(len(dataset), config.batch_size, config.seed, shuffle=False)
            loader = _ordered(dataset, order, config.num_workers, config, _collating(dataset)).loader
    _refuse_empty(loader, "validation")
    return loader


def _dataset(data: Any, purpose: str) -> Any:
    if holds_arrays(data):
        return as_dataset(data, purpose)
    if isinstance(data, list | tuple | Mapping) and _holds_loaders(data):
        raise DataError(
            f"A run has one {purpose} loader, but the data is a {type(data).__name__} of {len(data)}: combine the "
            "datasets in one Dataset."
        )
    if isinstance(data, list | IterableDataset):
        return data
    if type(data).__module__.startswith("datasets.") and (getattr(data, "format", None) or {}).get("type") is None:
        return data.with_format("torch")  # Hugging Face's: as python lists its rows would not become a batch
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


def _loader(dataset: Any, config: TrainerConfig) -> DataLoader[Any]:
    """Makes a loader that takes the samples as they come.

    Its workers start anew each time: what they draw then depends on the epoch, and not on what they did before.
    """
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        pin_memory=config.device == "cuda",
        generator=torch.Generator().manual_seed(config.seed % 2**63),
        **_collating(dataset),
    )


def _collating(dataset: Any) -> dict[str, Any]:
    """Returns the loader's setting for a dataset that says how its samples become a batch."""
    collate = own_collate(dataset)
    return {} if collate is None else {"collate_fn": collate}


def _refuse_empty(loader: Any, purpose: str) -> None:
    try:
        empty = len(loader) == 0
    except TypeError:  # an iterable dataset without a length: training sees at its first batch, evaluation much later
        make_polite(loader)  # before persistent workers start
        empty = purpose == "validation" and next(begin(loader), loader) is loader
    if empty:
        raise DataError(f"The {purpose} data is empty: its loader has no batches.")


def own_collate(dataset: Any) -> Any:
    """Returns how a dataset makes a batch of its samples, or None: the callable ``collate_fn`` that it may have.

    Samples of different lengths need one. A `torch.utils.data.Subset` has that of its dataset.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    found = getattr(dataset, "collate_fn", None)
    return found if callable(found) else None
