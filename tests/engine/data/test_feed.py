"""Every kind of training data resumes at its saved position."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from darkit.engine.checkpoints.difference import differences
from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.data.loaders import make_loaders
from darkit.engine.device import generator_states, seed_generators
from tests.engine.parts import xy
from tests.engine.resuming import (
    Augmented,
    Buffered,
    Continuing,
    Counting,
    OwnNoise,
    OwnSampler,
    Shuffled,
    hugging,
    shuffling,
    weighted,
)

CONFIG = TrainerConfig(device="cpu", batch_size=6, seed=4)


def own(data: Any) -> Feed:
    return make_loaders(data, None, CONFIG).train


class Listed:
    """A custom loader: batches drawn at random on iteration."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        return (torch.rand(2) for _ in range(3))


FEEDS: dict[str, Callable[[], Feed]] = {
    "map-style": lambda: own(Augmented()),
    "shuffling loader": lambda: own(shuffling()),
    "generator": lambda: own(shuffling(generator=torch.Generator().manual_seed(8))),
    "sampler with a generator": lambda: own(
        DataLoader(Augmented(), 6, sampler=RandomSampler(range(16), generator=torch.Generator().manual_seed(8)))
    ),
    "sampler": lambda: own(DataLoader(Augmented(), 6, sampler=OwnSampler())),
    "batch sampler": lambda: own(DataLoader(Augmented(), batch_sampler=BatchSampler(OwnSampler(), 6, False))),
    "stream": lambda: own(Shuffled()),
    "stream with a state": lambda: own(Continuing()),
    "loader of a stream with a state": lambda: own(DataLoader(Continuing(), batch_size=5)),
    "stream of Hugging Face": lambda: own(
        datasets.Dataset.from_dict({"x": list(range(16))})
        .to_iterable_dataset(num_shards=8)
        .shuffle(seed=1, buffer_size=1)
        .with_format("torch")
    ),
    "stream of Hugging Face with a buffer": lambda: Feed(hugging(7)),
    "weighted batch sampler": lambda: own(weighted()),
    "sampler that counts its epochs": lambda: own(DataLoader(Augmented(), 6, sampler=Counting())),
    "stream with a buffer": lambda: own(Buffered()),
    "dataset with generators": lambda: own(OwnNoise()),
    "kept dataset with generators": lambda: own(DataLoader(OwnNoise(), 6, sampler=OwnSampler())),
    "samples without batches": lambda: own(DataLoader(Augmented(), batch_size=None, sampler=OwnSampler())),
    "iterable": lambda: Feed(Listed()),
}


class Training:
    """Uses batches like the adapter, and draws its own random numbers in between."""

    def __init__(self, feed: Feed, seed: int = 1) -> None:
        seed_generators(seed)
        self.feed = feed
        self.epoch = 0
        self.batches = iter(feed)

    def go_on(self, position: Any, generators: Any) -> None:
        self.feed.resume(position, generators)
        self.epoch = position["epoch"]
        self.batches = iter(self.feed)

    def take(self) -> Any:
        while True:
            for batch in self.batches:
                self.feed.batches += 1
                drawn = random.random(), float(numpy.random.rand()), torch.rand(()).item()
                self.feed.mark()
                return _plain(batch), drawn
            self.epoch += 1
            self.feed.next_epoch(self.epoch)
            self.feed.mark()
            self.batches = iter(self.feed)


def _plain(batch: Any) -> Any:
    if isinstance(batch, dict):
        batch = list(batch.values())
    return batch.tolist() if isinstance(batch, torch.Tensor) else [_plain(part) for part in batch]


@settings(max_examples=8)
@given(taken=st.integers(0, 9))
@pytest.mark.parametrize("kind", FEEDS)
def test_any_place_is_entered_again_with_the_same_batches_and_random_numbers(kind: str, taken: int) -> None:
    first = Training(FEEDS[kind]())
    for _ in range(taken):
        first.take()
    position, generators = first.feed.position(), generator_states()
    expected = [first.take() for _ in range(6)]
    second = Training(FEEDS[kind](), seed=99)
    second.go_on(position, generators)
    assert {key: second.feed.position()[key] for key in ("epoch", "batches")} == {
        key: position[key] for key in ("epoch", "batches")
    }
    assert [second.take() for _ in range(6)] == expected
    assert list(differences(second.feed.position(), first.feed.position())) == []


WITH_WORKERS: dict[str, Callable[[], Feed]] = {
    "weighted": lambda: own(weighted(num_workers=2)),
    "weighted, persistent": lambda: own(weighted(num_workers=2, persistent_workers=True)),
    "own counter, persistent": lambda: own(
        DataLoader(Augmented(), 6, sampler=Counting(), num_workers=2, persistent_workers=True)
    ),
    "shuffling, persistent": lambda: own(shuffling(num_workers=2, persistent_workers=True)),
    "spawned": lambda: own(weighted(num_workers=1, multiprocessing_context="spawn", persistent_workers=True)),
    "stream of Hugging Face with a buffer": lambda: own(hugging(7, num_workers=2)),
    "buffered stream": lambda: own(DataLoader(Buffered(), batch_size=6, num_workers=1)),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_workers_load_the_same_from_any_position(kind: str) -> None:
    first = Training(WITH_WORKERS[kind]())
    taken = [first.take() for _ in range(5)]  # of 3 to 8 an epoch
    position, generators = first.feed.position(), generator_states()
    expected = [first.take() for _ in range(6)]
    first.feed.close()
    second = Training(WITH_WORKERS[kind](), seed=99)
    second.go_on(position, generators)
    assert [second.take() for _ in range(6)] == expected
    assert expected[:5] != taken
    second.feed.close()


def test_random_numbers_of_workers_depend_on_the_batch_and_a_custom_sampler_is_not_exhausted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two = own(weighted(num_workers=1)), own(weighted(num_workers=2))
    batches = []
    for feed in (one, two):
        seed_generators(1)
        batches.append([_plain(batch) for batch in feed])
        feed.close()
    assert batches[0] == batches[1]
    feed = own(weighted(num_workers=1))
    feed.resume(Training(own(weighted())).feed.position() | {"batches": 3}, generator_states())
    with caplog.at_level(logging.WARNING):
        assert len(list(feed)) == 2
    assert caplog.messages == []
    feed.close()


def test_a_batch_used_after_the_last_step_is_used_again() -> None:
    for kind in ("stream with a state", "weighted batch sampler", "dataset with generators"):
        first = Training(FEEDS[kind]())
        for _ in range(4):
            first.take()
        generators = generator_states()
        position = first.feed.position()
        expected = [first.take() for _ in range(3)]
        first = Training(FEEDS[kind]())
        for _ in range(4):
            first.take()
        next(first.batches, None)  # in which, say, the step fails
        ahead = first.feed.position()
        assert (ahead["epoch"], ahead["batches"]) == (position["epoch"], position["batches"])
        second = Training(FEEDS[kind](), seed=99)
        second.go_on(ahead, generators)
        assert [second.take() for _ in range(3)] == expected, kind


def test_ordered_data_resumes_without_loading_earlier_samples(caplog: pytest.LogCaptureFixture) -> None:
    data = Augmented()
    feed = own(data)
    feed.resume({"epoch": 1, "batches": 2}, generator_states())
    data.samples.asked.clear()
    assert len(list(feed)) == 1
    assert len(data.samples.asked) == 4
    assert caplog.messages == []


def test_other_data_is_read_again_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    feed = own(Shuffled())
    with caplog.at_level(logging.WARNING):
        feed.resume({"epoch": 0, "batches": 2, "start": None}, generator_states())
        assert len(list(feed)) == 1
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Reading 2 batches again to reach the checkpoint's position")


def test_a_stream_with_a_state_is_not_read_forward(caplog: pytest.LogCaptureFixture) -> None:
    data = Continuing()
    feed = own(data)
    feed.resume(
        {"epoch": 0, "batches": 2, "dataset": {"place": 12}, "ended": False, "own_generators": []}, generator_states()
    )
    assert len(list(feed)) == 1
    assert data.asked == [12, 13, 14, 15]
    assert caplog.messages == []


def test_a_position_is_that_of_the_last_mark() -> None:
    feed = own(xy())
    batches = iter(feed)
    for _ in range(2):
        next(batches)
        feed.batches += 1
        if feed.batches == 1:
            feed.mark()
    steps = {"per_step": 6, "groups": 1}
    assert feed.position() == {"epoch": 0, "batches": 1, "samples": 6} | steps
    feed.next_epoch(1)
    assert feed.position() == {"epoch": 0, "batches": 1, "samples": 6} | steps
    feed.mark()
    assert feed.position() == {"epoch": 1, "batches": 0, "samples": 0} | steps


def test_samplers_get_the_epoch_before_it_begins() -> None:
    sampler = OwnSampler()
    for loader in (
        DataLoader(Augmented(), sampler=sampler),
        DataLoader(Augmented(), batch_sampler=BatchSampler(sampler, 2, False)),
    ):
        sampler.epoch = -1
        feed = Feed(loader)
        next(iter(feed))
        assert sampler.epoch == 0
        feed.next_epoch(3)
        next(iter(feed))
        assert sampler.epoch == 3
        feed.resume({"epoch": 7, "batches": 0}, generator_states())
        next(iter(feed))
        assert sampler.epoch == 7


def test_a_stream_gets_the_epoch_before_it_begins() -> None:
    class Told(Continuing):
        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    data = Told()
    feed = own(data)
    for epoch in (0, 3):
        feed.next_epoch(epoch)
        next(iter(feed))
        assert data.epoch == epoch


def test_the_length_is_the_loaders_but_a_stream_with_a_state_is_read_to_its_end() -> None:
    assert len(own(xy())) == 3
    assert len(Feed(Listed())) == 3
    with pytest.raises(TypeError, match="have no length"):
        len(own(Continuing(sized=True)))
