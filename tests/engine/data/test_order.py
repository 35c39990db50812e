"""The order of the data: a permutation given by seed and epoch, which can start at any batch."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, get_worker_info

from darkit.engine.data.order import Batch, BatchOrder, SeededDataset

SIZES = {"length": st.integers(1, 40), "batch_size": st.integers(1, 7)}


def epoch_of(order: BatchOrder, epoch: int = 0, first: int = 0) -> list[list[int]]:
    order.start(epoch, first)
    return [list(batch) for batch in order]


@given(**SIZES, seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 3))
def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(
    length: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_of(BatchOrder(length, batch_size, seed), epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(length))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert batches == epoch_of(BatchOrder(length, batch_size, seed), epoch)


@given(**SIZES, epoch=st.integers(0, 3), drop_last=st.booleans(), data=st.data())
def test_an_epoch_can_be_entered_at_any_batch(
    length: int, batch_size: int, epoch: int, drop_last: bool, data: Any
) -> None:
    order = BatchOrder(length, batch_size, 7, drop_last=drop_last)
    whole = epoch_of(order, epoch)
    seeds = [batch.seed for batch in order]  # type: ignore[attr-defined]
    first = data.draw(st.integers(0, len(whole)))
    assert epoch_of(order, epoch, first) == whole[first:]
    assert [batch.seed for batch in order] == seeds[first:]  # type: ignore[attr-defined]
    assert len(order) == len(whole)


@given(**SIZES, drop_last=st.booleans())
def test_without_shuffling_the_samples_keep_their_order(length: int, batch_size: int, drop_last: bool) -> None:
    batches = epoch_of(BatchOrder(length, batch_size, 1, shuffle=False, drop_last=drop_last), 2)
    indices = [index for batch in batches for index in batch]
    assert indices == list(range(len(indices)))
    assert len(indices) == (length - length % batch_size if drop_last else length)


@given(length=st.integers(1, 40), batch_size=st.integers(1, 5), world=st.integers(1, 4), epoch=st.integers(0, 2))
def test_ranks_share_an_epoch_evenly_and_without_overlap(length: int, batch_size: int, world: int, epoch: int) -> None:
    shares, seeds = [], []
    for rank in range(world):
        order = BatchOrder(length, batch_size, 1)
        order.rank, order.world = rank, world
        shares.append([index for batch in epoch_of(order, epoch) for index in batch])
        order.start(epoch, 0)
        seeds += [batch.seed for batch in order]  # type: ignore[attr-defined]
    if length >= world:
        assert {len(share) for share in shares} == {length // world}
        assert len({index for share in shares for index in share}) == length // world * world
        assert len(set(seeds)) == len(seeds)


def test_other_seeds_and_epochs_give_other_orders_and_other_seeds_of_batches() -> None:
    orders, seeds = set(), set()
    for seed in range(5):
        for epoch in range(5):
            order = BatchOrder(50, 10, seed)
            orders.add(tuple(map(tuple, epoch_of(order, epoch))))
            order.start(epoch, 0)
            seeds |= {batch.seed for batch in order}  # type: ignore[attr-defined]
    assert (len(orders), len(seeds)) == (25, 125)


def test_a_batch_keeps_its_seed_on_its_way_to_a_worker() -> None:
    batch = pickle.loads(pickle.dumps(Batch([3, 1], 5)))
    assert (batch, batch.seed) == ([3, 1], 5)


class Noisy(Dataset[Any]):
    """Draws from every generator."""

    offset = 0

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([index + self.offset, random.random(), numpy.random.rand(), torch.rand(()).item()])


class NoisyAtOnce(Noisy):
    """Loads a batch in one go."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        assert type(indices) is list
        return [self[index] + 100 for index in indices]


def _set_offset(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    assert len(info.dataset) == 12
    info.dataset.offset = info.dataset.offset + 1000


@pytest.mark.parametrize("cls", [Noisy, NoisyAtOnce])
def test_the_random_numbers_of_workers_depend_on_the_batch_alone(cls: type[Noisy]) -> None:
    def loaded(workers: int, first: int = 0) -> list[Any]:
        order = BatchOrder(12, 3, 5)
        order.start(1, first)
        return [batch.tolist() for batch in DataLoader(SeededDataset(cls()), batch_sampler=order, num_workers=workers)]

    whole = loaded(1)
    assert loaded(2) == whole
    assert loaded(2, 2) == whole[2:]
    noise = [row[1] for batch in whole for row in batch]
    assert len(set(noise)) == len(noise)


def test_a_worker_init_fn_finds_the_dataset_and_may_change_it() -> None:
    order = BatchOrder(12, 3, 5, shuffle=False)
    loader = DataLoader(SeededDataset(Noisy()), batch_sampler=order, num_workers=1, worker_init_fn=_set_offset)
    assert [row[0].item() for batch in loader for row in batch] == list(range(1000, 1012))


class Exhausted(Noisy):
    """A dataset whose samples raise StopIteration."""

    def __getitem__(self, index: int) -> Any:
        return next(iter(())) if index == 7 else super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_raises_stop_iteration_does_not_end_the_epoch(workers: int) -> None:
    loader = DataLoader(SeededDataset(Exhausted()), batch_sampler=BatchOrder(12, 3, 5), num_workers=workers)
    with pytest.raises(RuntimeError, match="StopIteration for one of its samples"):
        list(loader)


def test_the_wrapper_has_only_attributes_of_the_dataset() -> None:
    wrapper = pickle.loads(pickle.dumps(SeededDataset(Noisy())))
    assert wrapper.offset == 0
    with pytest.raises(AttributeError, match="nothing"):
        wrapper.nothing  # noqa: B018
