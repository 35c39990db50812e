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


def of_rank(
    rank: int, world: int, length: int, batch_size: int, total: int | None = None, **options: Any
) -> BatchOrder:
    order = BatchOrder(length, batch_size, 1, **options)
    order.rank, order.world, order.total = rank, world, total
    return order


@given(length=st.integers(1, 40), batch_size=st.integers(1, 5), world=st.integers(1, 4), epoch=st.integers(0, 2))
def test_ranks_that_cannot_weight_share_an_epoch_evenly(length: int, batch_size: int, world: int, epoch: int) -> None:
    shares, seeds = [], []
    for rank in range(world):
        order = of_rank(rank, world, length, batch_size)
        order.even = True
        shares.append([index for batch in epoch_of(order, epoch) for index in batch])
        order.start(epoch, 0)
        seeds += [batch.seed for batch in order]  # type: ignore[attr-defined]
    if length >= world:
        assert {len(share) for share in shares} == {length // world}
        assert len({index for share in shares for index in share}) == length // world * world
        assert len(set(seeds)) == len(seeds)


@given(
    length=st.integers(1, 60),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 5),
    total=st.one_of(st.none(), st.integers(1, 30)),
    drop_last=st.booleans(),
    epoch=st.integers(0, 2),
)
def test_steps_have_the_same_samples_on_any_number_of_ranks(
    length: int, batch_size: int, world: int, total: int | None, drop_last: bool, epoch: int
) -> None:
    """Every sample of an epoch counts once, and no rank is behind the others."""
    total = total and max(total, world)
    unit = total or batch_size * world
    whole = [sorted(batch) for batch in epoch_of(of_rank(0, 1, length, unit, drop_last=drop_last), epoch)]
    ranks = [of_rank(rank, world, length, batch_size, total, drop_last=drop_last) for rank in range(world)]
    batches = [epoch_of(order, epoch) for order in ranks]
    assert {len(one) for one in batches} == {len(ranks[0])}
    steps: list[list[int]] = []
    number = 0
    while number < len(ranks[0]):
        parts, steps = ranks[0].parts_at(number), [*steps, []]
        for at in range(number, number + parts):
            for order, mine in zip(ranks, batches, strict=True):
                assert 1 <= len(mine[at]) <= batch_size
                if order.is_filler(at):
                    assert parts * world > min(unit, length - (len(steps) - 1) * unit), "more batches than samples"
                else:
                    steps[-1] += mine[at]
        place = ranks[0].place(number)
        assert place["samples"] == min((len(steps) - 1) * unit, length)
        assert {order.batch_after((len(steps) - 1) * unit) for order in ranks} == {number}
        assert not ranks[0].is_within_unit((len(steps) - 1) * unit)
        number += parts
    assert [sorted(step) for step in steps] == whole
    assert ranks[0].batch_after(length) == number
    assert ranks[0].units == len(steps)
    seeds = [batch.seed for order in ranks for batch in order]  # type: ignore[attr-defined]
    assert len(set(seeds)) == len(seeds)


def test_batches_are_the_same_however_many_ranks_share_them_while_their_number_is() -> None:
    """So normalization over a batch, and what workers draw for it, do not depend on the number of ranks."""

    def batches(world: int, batch_size: int) -> list[list[tuple[list[int], int]]]:
        orders = [of_rank(rank, world, 32, batch_size, 16) for rank in range(world)]
        found = [list(order) for order in orders]
        parts = orders[0].parts()
        units = [[mine[at : at + parts] for mine in found] for at in range(0, len(found[0]), parts)]
        return [sorted((list(b), b.seed) for mine in unit for b in mine) for unit in units]  # type: ignore[attr-defined]

    assert batches(1, 4) == batches(2, 4) == batches(4, 4)
    assert [len(batch) for batch, _ in batches(4, 4)[0]] == [4] * 4


def test_steps_over_two_epochs_have_no_cut_for_other_ranks() -> None:
    for length, accumulation, expected in ((16, 1, 4), (16, 2, 8), (16, 3, None), (17, 2, None), (17, 5, 20)):
        order = BatchOrder(length, 4, 0)
        order.accumulation = accumulation
        assert order.per_step == expected


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
