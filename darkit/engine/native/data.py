"""The data of a training by Lightning's own loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from darkit.engine.config import TrainerConfig
from darkit.engine.data.adopt import adopt
from darkit.engine.data.feed import Feed
from darkit.engine.data.fingerprint import describe_data
from darkit.engine.data.fits import small_batch
from darkit.engine.data.loaders import VALIDATION, Loaders, make_loaders, make_validation, validation_of
from darkit.engine.data.ranks import divide, ends_together, refuse_repeated
from darkit.engine.data.shards import shards_of
from darkit.engine.data.stateful import StatefulLoader
from darkit.engine.log.progress import announce
from darkit.engine.processes import process_group
from darkit.errors import DataError, listing


class NativeData:
    """What ``trainer.fit`` gets as data, with loaders whose position is known where that is possible.

    Args:
        data: DataLoaders in any form that Lightning takes, a LightningDataModule, what `darkit.fit` takes otherwise, or
            None if the module has a ``train_dataloader``.
        val_data: Validation data, likewise, or None.
        config: Batch size, workers, seed and device.

    Raises:
        DataError: The data is empty or of an unknown kind.
    """

    def __init__(self, data: Any, val_data: Any, config: TrainerConfig) -> None:
        self.config = config
        self.loaders: Loaders | None = None
        self._made: list[StatefulLoader] = []
        self._module = data if isinstance(data, lightning.LightningDataModule) else None
        if self._module is not None and val_data is not None:
            raise DataError(
                f"The data is the LightningDataModule {type(data).__name__}, and val_data is given too: return it from "
                "val_dataloader."
            )
        if self._module is not None:
            return
        if isinstance(data, Mapping) and "train" in data and not isinstance(data["train"], DataLoader):
            self.loaders = make_loaders(data, val_data, config)
        elif isinstance(data, Mapping) and "train" in data:
            _refuse_unknown(data)
            data, val_data = data["train"], validation_of(data) if val_data is None else val_data
        if self.loaders is None and not _is_for_lightning(data):
            self.loaders = make_loaders(data, None if _is_for_lightning(val_data) else val_data, config)
        if self.loaders is None:
            self._train, self._val = data, _validation(val_data, config)
        else:
            self._train = StatefulLoader(self.loaders.train)
            self._val = _whole(self.loaders.val, config) if self.loaders.val is not None else val_data

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``trainer.fit``."""
        if self._module is not None:
            return {"datamodule": self._module}
        return {"train_dataloaders": self._train, "val_dataloaders": self._val}

    def adopted(self, loader: Any) -> StatefulLoader | None:
        """Return a loader with a position for one that Lightning prepared; None for one that has its own state.

        Raises:
            DataError: Several processes would read the same, or may not end together, in a loader with its own state.
        """
        if has_state(loader):
            _divide(loader, *process_group())
            return None
        made = StatefulLoader(adopt(loader, self.config) if isinstance(loader, DataLoader) else Feed(loader))
        self._made.append(made)
        return made

    def divided(self, *, by_lightning: bool = True) -> dict[str, Any]:
        """Return the map-style datasets that are divided over the processes, by purpose.

        Args:
            by_lightning: Whether Lightning gives plain loaders a `DistributedSampler`.
        """
        if self._module is not None:
            return {}
        found = {}
        for purpose, data in (("training", self._train), ("validation", self._val)):
            for number, loader in enumerate(flat_loaders(data)):
                found[f"{purpose} {number + 1}" if number else purpose] = _ordered(loader, by_lightning)
        return found

    def sample(self) -> Any:
        """Return a small batch, if the data can be read before the training."""
        if self.loaders is not None:
            return small_batch(self.loaders)
        if self._module is None and isinstance(self._train, DataLoader):
            return small_batch(Loaders(Feed(self._train), None, self._train.dataset))
        return None

    def facts(self) -> dict[str, Any]:
        """Return what is recorded of the data."""
        if self.loaders is not None:
            return describe_data(self.loaders)
        if len(self._made) == 1:
            loader = self._made[0].feed.loader
            return describe_data(Loaders(self._made[0].feed, None, getattr(loader, "dataset", None)))
        return {}

    def close(self) -> None:
        """Release the data and end its worker processes."""
        for loader in self._made:
            loader.close()
        if self.loaders is not None:
            self.loaders.close()


def _ordered(loader: Any, by_lightning: bool) -> Any:
    """Return the dataset of a loader that is in darkit's order, or that Lightning divides; else None."""
    if isinstance(loader, StatefulLoader):
        return loader.feed.loader.dataset if loader.feed.order is not None else None
    if isinstance(loader, WholeLoader):
        return _ordered(loader.loader, by_lightning)
    if shards_of(loader) is not None:
        return loader.dataset
    if not by_lightning or not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    return loader.dataset if isinstance(loader.sampler, SequentialSampler | RandomSampler) else None


def _divide(loader: Any, rank: int, size: int) -> None:
    """Select the part of a process in a loader with its own state. Raises `DataError`."""
    if size == 1:
        return
    refuse_repeated(loader, rank, size)
    if not ends_together(loader):
        raise DataError(
            f"The processes may get different numbers of batches from the {type(loader).__name__}, and would wait for "
            "each other: set even_ranks = True on its dataset if they do not, or give the dataset itself."
        )
    divide(loader, rank, size)


class UnsizedLoader:
    """A foreign loader with a state and no length, whose state is that of the batches that were used.

    Without a length Lightning fetches each batch before the one ahead of it is used. Attributes are the loader's.

    Args:
        loader: The loader.
        ahead: Returns the number of batches that were fetched and not used yet: 0 or 1.
    """

    def __init__(self, loader: Any, ahead: Callable[[], int]) -> None:
        self.loader = loader
        self._ahead = ahead
        self._before: Any = None

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # while being unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            self._before = copy.deepcopy(self.loader.state_dict())
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def state_dict(self) -> Any:
        """Return the state after the last batch that was used."""
        return self._before if self._ahead() else self.loader.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Restore a state."""
        self.loader.load_state_dict(state)


def has_state(loader: Any) -> bool:
    """Return whether the position of a loader can be saved and restored."""
    return callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))


def with_used_state(loader: Any, ahead: Callable[[], int]) -> Any:
    """Return a loader with a state so that its state is that of the batches that were used; see `UnsizedLoader`."""
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return loader if isinstance(loader, UnsizedLoader) else UnsizedLoader(loader, ahead)
    return loader


def _refuse_unknown(data: Mapping[Any, Any]) -> None:
    """Refuse loaders beside ``train`` under names that say nothing. Raises `DataError`."""
    unknown = [str(name) for name in data if name not in ("train", "test", *VALIDATION)]
    if unknown:
        raise DataError(
            f"The data has 'train' and {listing(list(map(repr, unknown)))}: name validation data 'val', or give "
            "several training loaders as a CombinedLoader and the validation data as val_data."
        )


def _is_for_lightning(data: Any) -> bool:
    """Return whether Lightning takes loaders as they are: none, or several in a container, or a loader."""
    if data is None or isinstance(data, DataLoader | CombinedLoader | StatefulLoader):
        return True
    if isinstance(data, Mapping):
        return bool(data) and all(map(_is_for_lightning, data.values()))
    return isinstance(data, list | tuple) and bool(data) and all(map(_is_for_lightning, data))


def _validation(data: Any, config: TrainerConfig) -> Any:
    return data if _is_for_lightning(data) else _whole(make_validation(data, config), config)


def _whole(loader: Any, config: TrainerConfig) -> Any:
    """Keep Lightning from dividing validation data over processes: its sampler repeats samples to make them even."""
    several = config.process_count() > 1 or config.strategy != TrainerConfig.strategy  # ddp divides for one too
    return WholeLoader(loader) if several else loader


class WholeLoader:
    """Validation batches that every process evaluates all.

    Args:
        loader: The loader.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)


def announce_repeats(trainer: lightning.Trainer) -> None:
    """Say so if several processes evaluate some validation samples twice, to have equal numbers."""
    for loader in flat_loaders(trainer.val_dataloaders):
        sampler = getattr(loader, "sampler", None)
        if not isinstance(sampler, DistributedSampler) or sampler.drop_last or not trainer.is_global_zero:
            continue
        whole = len(sampler.dataset)  # type: ignore[arg-type]
        if repeated := sampler.total_size - whole:
            announce(
                f"Lightning's DistributedSampler repeats {repeated} of the {whole} validation samples to give each of "
                f"{trainer.world_size} processes as many, so validation means count these twice. With "
                "use_distributed_sampler=False every process evaluates all samples once."
            )


def flat_loaders(loaders: Any) -> list[Any]:
    """Return the loaders in a nested collection of them."""
    if isinstance(loaders, Mapping):
        return [part for loader in loaders.values() for part in flat_loaders(loader)]
    if isinstance(loaders, list | tuple):
        return [part for loader in loaders for part in flat_loaders(loader)]
    return [] if loaders is None else [loaders]
