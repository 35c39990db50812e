"""The order of the data is a function of seed, epoch and place, and one enters it anywhere."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from darkit.engine.order import Batch, BatchOrder, SeededDataset

SIZES = st.integers(1, 40)
SMALL = st.integers(1, 7)
SEEDS = st.integers(0, 2**63 - 1)


def batches(order: BatchOrder) -> list[list[int]]:
    return [list(batch) for batch in order]


@given(SIZES, SMALL, SEEDS, st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_sample_comes_once_an_epoch(
    length: int, size: int, seed: int, shuffle: bool, drop: bool, epoch: int
) -> None:
    order = BatchOrder(length, size, seed, shuffle=shuffle, drop_last=drop)
    order.start(epoch, 0)
    found = batches(order)
    assert len(found) == len(order)
    assert all(len(batch) == size for batch in found[:-1])
    taken = [index for batch in found for index in batch]
    if drop:
        assert len(taken) == length - length % size
        assert len(set(taken)) == len(taken)
    else:
        assert sorted(taken) == list(range(length))
    if not shuffle:
        assert taken == list(range(len(taken)))


@given(SIZES, SMALL, SEEDS, st.integers(0, 3), st.data())
def test_entered_anywhere_what_follows_is_the_same(
    length: int, size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    whole = BatchOrder(length, size, seed)
    whole.start(epoch, 0)
    first = data.draw(st.integers(0, len(whole)))
    entered = BatchOrder(length, size, seed)
    entered.start(epoch, first)
    expected = list(whole)[first:]
    found = list(entered)
    assert found == expected
    assert [batch.seed for batch in found] == [batch.seed for batch in expected]  # type: ignore[attr-defined]
    assert len(entered) == len(whole), "whatever asks how long an epoch is gets the same answer"


@given(SIZES, SMALL, SEEDS, st.integers(1, 4))
def test_ranks_share_an_epoch_without_a_sample_twice_and_wait_for_none(
    length: int, size: int, seed: int, world: int
) -> None:
    orders = [BatchOrder(length, size, seed) for _ in range(world)]
    for rank, order in enumerate(orders):
        order.rank, order.world = rank, world
    assert len({len(order) for order in orders}) == 1
    taken = [index for order in orders for batch in order for index in batch]
    if length >= world:
        assert len(taken) == len(set(taken)) == length - length % world
    seeds = [batch.seed for order in orders for batch in order]  # type: ignore[attr-defined]
    assert len(set(seeds)) == len(seeds)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    seen = set()
    for seed in range(4):
        order = BatchOrder(50, 50, seed)
        for epoch in range(4):
            order.start(epoch, 0)
            (batch,) = list(order)
            seen.add((tuple(batch), batch.seed))  # type: ignore[attr-defined]
    assert len({indices for indices, _ in seen}) == 16
    assert len({seed for _, seed in seen}) == 16


def test_the_order_takes_nothing_from_anybodys_generator() -> None:
    state = torch.get_rng_state()
    list(BatchOrder(10, 3, 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_that_is_sent_to_a_worker_keeps_its_place() -> None:
    sent = pickle.loads(pickle.dumps(Batch([3, 1], 9)))
    assert (sent, sent.seed) == ([3, 1], 9)


class Noisy(Dataset[float]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> float:
        return index + random.random() / 4 + float(numpy.random.rand()) / 4 + float(torch.rand(())) / 4


def loaded(first: int, workers: int) -> list[list[float]]:
    order = BatchOrder(12, 2, 5)
    order.start(0, first)
    loader: DataLoader[Any] = DataLoader(SeededDataset(Noisy()), batch_sampler=order, num_workers=workers)
    return [batch.tolist() for batch in loader]


def test_random_numbers_in_workers_depend_on_the_batch_and_not_on_the_worker() -> None:
    expected = loaded(0, 1)
    assert loaded(0, 2) == expected
    assert loaded(4, 2) == expected[4:]
    assert len({value % 1 for batch in expected for value in batch}) == 12


class Whole(Dataset[int]):
    """Loads whole batches, and has a method and a setting of its own."""

    factor = 10

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        raise AssertionError("it can load a batch at once")

    def __getitems__(self, indices: list[int]) -> list[int]:
        assert type(indices) is list
        return [index * self.factor for index in indices]


def test_a_dataset_that_loads_whole_batches_is_asked_for_them() -> None:
    assert SeededDataset(Whole()).__getitems__(Batch([1, 2], 0)) == [10, 20]


def test_what_a_worker_looks_up_or_sets_at_the_dataset_is_the_datasets() -> None:
    around = pickle.loads(pickle.dumps(SeededDataset(Whole())))
    assert (len(around), around.factor) == (6, 10)
    around.factor = 2
    assert around.__getitems__(Batch([3], 0)) == [6]
