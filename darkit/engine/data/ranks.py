"""Training data that darkit does not order, over several processes: divided by rank, or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from torch.utils.data import BatchSampler, ChainDataset, DataLoader, IterableDataset, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from darkit.engine.data.order import SeededDataset
from darkit.errors import DataError

_KEPT = ("collate_fn", "pin_memory", "timeout", "worker_init_fn")  # of a loader that is made again
_KEPT_WITH_WORKERS = ("prefetch_factor", "multiprocessing_context", "persistent_workers")


def refuse_repeated(loader: Any, rank: int, world_size: int) -> None:
    """Refuse a loader from which several processes would read the same samples.

    Raises:
        DataError: It has an iterable dataset or a sampler that is not divided, or is divided in another way.
    """
    dataset = getattr(loader, "dataset", None)
    if world_size == 1 or _has_set_rank(loader) or _has_set_rank(dataset):
        return
    if not isinstance(loader, DataLoader):
        raise DataError(
            f"The {type(loader).__name__} would give each of the {world_size} processes the same batches. Give it a "
            "method set_rank(rank, world_size) that selects the part of a process, or use a Dataset or DataLoader."
        )
    if isinstance(dataset, IterableDataset):
        for part in _parts_of_stream(dataset):
            _check_stream(part, rank, world_size, top=part is dataset, plain=type(loader) is DataLoader)
        return
    samplers = list(_samplers(loader))
    if any(map(_has_set_rank, samplers)):
        return
    divided = [sampler for sampler in samplers if isinstance(sampler, DistributedSampler)]
    for sampler in divided:
        if (sampler.rank, sampler.num_replicas) != (rank, world_size):
            raise DataError(
                f"The {type(sampler).__name__} is for process {sampler.rank} of {sampler.num_replicas}, but this is "
                f"process {rank} of {world_size}: give the dataset itself, which darkit divides, or set "
                "num_replicas and rank."
            )
    if not divided:
        raise DataError(
            f"{type(samplers[-1]).__name__} would give each of the {world_size} processes all of the training data. "
            "Use a DistributedSampler, a sampler with a method set_rank(rank, world_size) that selects the part of a "
            "process, or give the dataset itself, which darkit divides."
        )


def refuse_ranked(dataset: Any, world_size: int) -> None:
    """Refuse a map-style dataset that selects the part of a process itself. Raises `DataError`."""
    if world_size > 1 and _has_set_rank(dataset):
        dataset = dataset.dataset if isinstance(dataset, SeededDataset) else dataset
        raise DataError(
            f"{type(dataset).__name__} has a method set_rank, but map-style data in darkit's order is divided over the "
            f"{world_size} processes without it: remove set_rank, or give a DataLoader with a DistributedSampler."
        )


def divide(loader: Any, rank: int, world_size: int) -> Any:
    """Select the part of a process: call ``set_rank`` of its parts, and split a Hugging Face stream.

    Returns:
        The loader, or one with the part of the stream.
    """
    dataset = getattr(loader, "dataset", None)
    for part in (loader, *_parts_of_stream(dataset), *_samplers(loader)):
        if _has_set_rank(part):
            part.set_rank(rank, world_size)
    if world_size == 1 or not isinstance(loader, DataLoader) or not isinstance(dataset, IterableDataset):
        return loader
    splits = is_hugging_face(dataset) and dataset._distributed is None  # type: ignore[attr-defined]
    generator = loader.generator
    if type(loader) is not DataLoader or not (splits or isinstance(generator, torch.Generator)):
        return loader
    if splits:
        from datasets.distributed import split_dataset_by_node

        dataset = split_dataset_by_node(dataset, rank, world_size)
    if isinstance(generator, torch.Generator):  # it seeds the workers, which must not draw the same on each rank
        generator = torch.Generator().manual_seed((generator.initial_seed() + rank) % 2**63)
    return DataLoader(
        dataset,
        loader.batch_size,
        drop_last=loader.drop_last,
        num_workers=loader.num_workers,
        generator=generator,
        in_order=loader.in_order,
        **kept_settings(loader),
    )


def kept_settings(loader: DataLoader[Any]) -> dict[str, Any]:
    """Return the settings of a loader that one made from it keeps, whatever its order."""
    names = (*_KEPT, *(_KEPT_WITH_WORKERS if loader.num_workers else ()))
    return {name: getattr(loader, name) for name in names}


def ends_together(loader: Any) -> bool:
    """Return whether all processes get the same number of batches without an agreement.

    This is the case for a `DistributedSampler`, and for a dataset with a true attribute ``even_ranks``.
    """
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, IterableDataset):
        return bool(getattr(dataset, "even_ranks", False))
    return any(isinstance(part, DistributedSampler) for part in _samplers(loader))


class Agreement:
    """Agree with the other processes, through a group of their own, whether all of them have another batch.

    Without it the one that has would wait forever for the gradients of those that have not. The group uses the
    network from the host, so that no device is waited for.

    Args:
        loader: The training data.

    Raises:
        DataError: The processes shuffle a Hugging Face stream with different seeds.
    """

    def __init__(self, loader: Any) -> None:
        self._group: Any = torch.distributed.new_group(backend="gloo")
        digests: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(digests, _order_of(getattr(loader, "dataset", None)), group=self._group)
        if len(set(digests)) > 1:
            raise DataError(
                "Each process shuffles the Hugging Face stream with another seed, so that some samples would come "
                "twice and others never: use shuffle(seed=...)."
            )

    def all_have(self, mine: bool) -> bool:
        """Return whether all processes have a batch."""
        found = torch.tensor(int(mine))
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MIN, group=self._group)
        return bool(found)


def is_hugging_face(dataset: Any) -> bool:
    """Return whether a dataset is a stream of Hugging Face's."""
    return isinstance(dataset, IterableDataset) and type(dataset).__module__.partition(".")[0] == "datasets"


def _check_stream(part: Any, rank: int, world_size: int, *, top: bool, plain: bool) -> None:
    """Raise `DataError` for an iterable dataset that is not divided."""
    if _has_set_rank(part):
        return
    if is_hugging_face(part):
        found = getattr(part, "_distributed", None)
        if found is not None and (found.rank, found.world_size) != (rank, world_size):
            raise DataError(
                f"The Hugging Face stream is split for process {found.rank} of {found.world_size}, but this is process "
                f"{rank} of {world_size}: give the whole stream, which darkit splits."
            )
        if found is None and not (top and plain):
            raise DataError(
                "darkit splits a Hugging Face stream that is given itself or in a plain DataLoader. Split this one "
                f"with datasets.distributed.split_dataset_by_node(stream, rank, {world_size})."
            )
        return
    raise DataError(
        f"{type(part).__name__} is an iterable dataset and would give each of the {world_size} processes the same "
        "samples. Give it a method set_rank(rank, world_size) that selects the part of a process (one that does "
        "nothing if it divides itself already), or use a map-style dataset or a Hugging Face stream."
    )


def _parts_of_stream(dataset: Any) -> Iterator[Any]:
    """Yield an iterable dataset, or those that a `ChainDataset` joins."""
    if type(dataset) is ChainDataset:
        for part in dataset.datasets:
            yield from _parts_of_stream(part)
    elif dataset is not None:
        yield dataset


def _samplers(loader: Any) -> list[Any]:
    """Return the samplers and batch samplers of a loader but for the plain ones of a loader with others."""
    batches = getattr(loader, "batch_sampler", None)
    batches = getattr(batches, "batches", batches)  # inside of `darkit.engine.data.order.PlacedBatches`
    parts = [getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    found = {id(part): part for part in parts if part is not None and type(part) is not BatchSampler}
    return [part for part in found.values() if type(part) is not SequentialSampler] or list(found.values())


def _has_set_rank(part: Any) -> bool:
    return callable(getattr(part, "set_rank", None))


def _order_of(dataset: Any) -> str:
    """Return a digest of the generators that shuffle a Hugging Face stream, which must be the same on all ranks."""
    digest = hashlib.sha256()
    left = [getattr(dataset, "_ex_iterable", None)] if is_hugging_face(dataset) else []
    while left:
        part = left.pop()
        for value in vars(part).values() if part is not None else ():
            if isinstance(value, numpy.random.Generator):
                digest.update(repr(value.bit_generator.state).encode())
        inner = getattr(part, "ex_iterable", None)
        left += [*getattr(part, "ex_iterables", ()), *([] if inner is None else [inner])]
    return digest.hexdigest()
