"""The order of the data: a permutation that seed and epoch decide, entered anywhere, shared by processes."""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.engine.order import BatchOrder


def samples(order: BatchOrder) -> list[int]:
    """The indices of all batches that the next iteration gives."""
    return [index for batch in order for index in batch]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**63 - 1), st.integers(0, 3))
def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(length: int, size: int, seed: int, epoch: int) -> None:
    order, again = BatchOrder(length, size, seed), BatchOrder(length, size, seed)
    order.start(epoch, 0)
    again.start(epoch, 0)
    assert sorted(samples(order)) == list(range(length))
    assert list(order) == list(again) == list(order)
    assert [batch.seed for batch in order] == [batch.seed for batch in again]  # type: ignore[attr-defined]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.booleans(), st.data())
def test_an_epoch_can_be_entered_at_any_batch(length: int, size: int, drop_last: bool, data: Any) -> None:
    order = BatchOrder(length, size, seed=7, drop_last=drop_last)
    order.start(2, 0)
    whole = list(order)
    assert len(order) == len(whole) == (length // size if drop_last else -(-length // size))
    first = data.draw(st.integers(0, len(whole)))
    order.start(2, first)
    assert list(order) == whole[first:]
    assert [batch.seed for batch in order] == [batch.seed for batch in whole[first:]]  # type: ignore[attr-defined]
    assert len(order) == len(whole)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_processes_share_an_epoch_evenly_and_without_overlap(
    length: int, world: int, epoch: int, shuffle: bool
) -> None:
    shares, seeds = [], []
    for rank in range(world):
        order = BatchOrder(length, 3, seed=1, shuffle=shuffle)
        order.rank, order.world = rank, world
        order.start(epoch, 0)
        shares.append(samples(order))
        seeds += [batch.seed for batch in order]  # type: ignore[attr-defined]
    if length >= world:
        assert {len(share) for share in shares} == {length // world}
        assert len({index for share in shares for index in share}) == length // world * world
        assert len(set(seeds)) == len(seeds)


def test_without_a_shuffle_the_samples_come_as_they_are() -> None:
    order = BatchOrder(5, 2, seed=3, shuffle=False)
    assert list(order) == [[0, 1], [2, 3], [4]]


def test_other_seeds_and_epochs_give_other_orders_and_other_random_numbers() -> None:
    orders, seeds = set(), []
    for seed in range(5):
        for epoch in range(5):
            order = BatchOrder(50, 10, seed)
            order.start(epoch, 0)
            orders.add(tuple(samples(order)))
            seeds += [batch.seed for batch in order]  # type: ignore[attr-defined]
    assert len(orders) == 25
    assert len(set(seeds)) == 125


def test_a_batch_keeps_its_seed_on_its_way_to_a_worker() -> None:
    (batch,) = BatchOrder(3, 3, seed=5)
    again = pickle.loads(pickle.dumps(batch))
    assert (list(again), again.seed) == (list(batch), batch.seed)  # type: ignore[attr-defined]
