"""Data that knows where it is, and goes on from there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from darkit.engine.config import TrainerConfig
from darkit.engine.device import generator_states, seed_generators
from darkit.engine.feed import Feed
from darkit.engine.loaders import make_loaders
from tests.engine.parts import Numbers
from tests.engine.resuming import Augmented, Continuing, OwnSampler, Shuffled

KINDS: dict[str, Callable[[], Any]] = {
    "map-style": Augmented,
    "loader": lambda: DataLoader(Augmented(), batch_size=4, shuffle=True),
    "loader with its own sampler": lambda: DataLoader(Augmented(), batch_size=4, sampler=OwnSampler()),
    "loader with its own generator": lambda: DataLoader(
        Augmented(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(2)
    ),
    "stream": Shuffled,
    "stream with a state": Continuing,
}
AT_ONCE = ("map-style", "loader", "stream with a state")


def feed_of(data: Any) -> Feed:
    return make_loaders(data, None, TrainerConfig(device="cpu", batch_size=4, seed=3)).train


def read(feed: Feed, epochs: int, stop: tuple[int, int] | None = None) -> tuple[list[Any], dict[str, Any]]:
    """Takes batches as the engine does, up to a place; returns them and what a checkpoint there would hold."""
    taken: list[Any] = []
    state: dict[str, Any] = {}
    first = feed.position()["epoch"]
    for epoch in range(first, epochs):
        for batch in feed:
            feed.batches += 1
            feed.mark()
            taken.append(batch[0].clone())
            if (epoch, feed.batches) == stop:
                return taken, {"position": feed.position(), "rng": generator_states()}
        feed.next_epoch(epoch + 1)
        feed.mark()
    return taken, state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [(0, 1), (0, 4), (1, 2)])
def test_what_follows_a_checkpoint_is_what_would_have_followed(kind: str, place: tuple[int, int]) -> None:
    seed_generators(5)
    straight, _ = read(feed_of(KINDS[kind]()), 3)
    seed_generators(5)
    before, state = read(feed_of(KINDS[kind]()), 3, place)
    seed_generators(99)
    feed = feed_of(KINDS[kind]())
    feed.resume(state["position"], state["rng"])
    after, _ = read(feed, 3)
    assert len(straight) == 12
    assert len(before) + len(after) == 12
    assert all(torch.equal(one, other) for one, other in zip(straight, [*before, *after], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_cannot_be_entered_is_read_forward_and_that_is_told(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    seed_generators(5)
    _, state = read(feed_of(KINDS[kind]()), 1, (0, 3))
    feed = feed_of(KINDS[kind]())
    feed.resume(state["position"], state["rng"])
    with caplog.at_level(logging.WARNING):
        next(iter(feed))
    told = [message for message in caplog.messages if message.startswith("Reading 3 batches forward")]
    assert len(told) == (kind not in AT_ONCE)


def test_entering_an_order_loads_nothing_that_was_trained_on_before() -> None:
    samples = Numbers(16)
    feed = feed_of(samples)
    feed.resume({"epoch": 2, "batches": 3}, generator_states())
    assert len(list(feed)) == 1
    assert len(samples.asked) == 4
    assert len(feed) == 4, "an epoch is as long as ever"


def test_the_position_is_that_of_the_last_step_and_not_of_what_was_taken_since() -> None:
    feed = feed_of(Augmented())
    batches = iter(feed)
    next(batches)
    feed.batches += 1
    feed.mark()
    next(batches)
    feed.batches += 1
    assert feed.position() == {"epoch": 0, "batches": 1}


def test_a_sampler_of_ones_own_is_told_the_epoch() -> None:
    samples = Numbers(16)
    sampler: DistributedSampler[Any] = DistributedSampler(samples, num_replicas=2, rank=0)
    feed = feed_of(DataLoader(samples, batch_size=4, sampler=sampler))
    assert feed.order is None
    feed.next_epoch(5)
    assert sampler.epoch == 5
    feed.resume({"epoch": 7, "batches": 1}, generator_states())
    assert sampler.epoch == 7


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        while True:
            yield torch.rand(2)


def test_data_without_an_end_has_no_length() -> None:
    with pytest.raises(TypeError):
        len(feed_of(Endless()))
