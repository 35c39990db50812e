"""Data of several processes that darkit does not order: divided by rank and worker, or refused; never repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    get_worker_info,
)
from torchdata.stateful_dataloader import StatefulDataLoader

import darkit
from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.data.loaders import make_loaders
from darkit.engine.data.ranks import Agreement, ends_together, refuse_repeated
from darkit.engine.data.shards import divisible, shards_of
from darkit.engine.native.data import NativeData
from darkit.errors import DataError
from tests.children import Zygote
from tests.engine.native.modules import Base
from tests.engine.parts import Numbers, Stream
from tests.engine.ranks import Noting, Numbered, on_ranks
from tests.engine.resuming import OwnSampler, weighted
from tests.engine.test_elastic import SETTINGS, Steps, joined


def rows(length: int, shards: int) -> Any:
    """A stream of Hugging Face's of the samples of `Numbered`."""
    import datasets

    samples = Numbered(length)
    columns = {"x": samples.x.tolist(), "y": samples.y.tolist(), "id": list(range(length))}
    return datasets.Dataset.from_dict(columns).to_iterable_dataset(num_shards=shards).with_format("torch")


class Divided(IterableDataset[dict[str, torch.Tensor]]):
    """Divides its samples unevenly, and knows its place."""

    def __init__(self) -> None:
        self.samples = Numbered(17)
        self.mine = range(17)
        self.place = 0

    def set_rank(self, rank: int, world_size: int) -> None:
        self.mine = (range(10), range(10, 17))[rank]

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        for place in range(self.place + first, len(self.mine), every):
            self.place = place + 1
            yield self.samples[self.mine[place]]
        self.place = 0

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


class RankedSampler(OwnSampler):
    """Selects the part of a process."""

    def set_rank(self, rank: int, world_size: int) -> None:
        self.part = (rank, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.part[0], 16, self.part[1]))


class OwnBatches(BatchSampler):
    """A custom batch sampler."""


class OwnLoader(DataLoader[Any]):
    """A custom subclass."""


def distributed(rank: int = 0, world: int = 2) -> DataLoader[Any]:
    sampler: DistributedSampler[Any] = DistributedSampler(Numbers(), num_replicas=world, rank=rank)
    return DataLoader(Numbers(), 4, sampler=sampler)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "iterable dataset": (Stream, r"Stream is an iterable dataset and would .*method set_rank\(rank, world_size\)"),
    "its loader": (lambda: DataLoader(Stream(), 4, num_workers=2), "Stream is an iterable dataset"),
    "one in a chain": (lambda: ChainDataset([Divided(), Stream()]), "Stream is an iterable dataset"),
    "weighted sampler": (weighted, "WeightedRandomSampler would give each of the 2 processes all of the training data"),
    "weighted sampler with workers": (lambda: weighted(num_workers=1), "WeightedRandomSampler would give each"),
    "batch sampler": (
        lambda: DataLoader(Numbers(), batch_sampler=OwnBatches(RandomSampler(Numbers()), 4, False)),
        "would give each of the 2 processes all of the training data. Use a DistributedSampler, a sampler with",
    ),
    "own loader": (lambda: OwnLoader(Numbers(), 4, shuffle=True), "RandomSampler would give each"),
    "sampler of another process": (lambda: distributed(1), "is for process 1 of 2, but this is process 0 of 2"),
    "sampler of one process": (lambda: distributed(0, 1), "is for process 0 of 1, but this is process 0 of 2"),
    "own loader of a Hugging Face stream": (lambda: OwnLoader(rows(8, 2)), r"split_dataset_by_node\(stream, rank, 2\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_data_that_several_processes_would_repeat_is_refused_with_what_to_do(kind: str) -> None:
    make, said = REFUSED[kind]
    loaders = make_loaders(make(), None, TrainerConfig(device="cpu", batch_size=4))
    loaders.train.share(0, 1)
    with pytest.raises(DataError, match=said) as caught:
        loaders.train.share(0, 2)
    assert str(caught.value).endswith(".")
    loaders.close()


def test_batches_of_a_foreign_iterable_are_refused_unless_it_divides_them() -> None:
    class Batches(list[int]):
        def set_rank(self, rank: int, world_size: int) -> None:
            self[:] = self[rank::world_size]

    with pytest.raises(DataError, match="The list would give each of the 2 processes the same batches"):
        refuse_repeated([1, 2], 0, 2)
    feed = Feed(Batches(range(6)))
    feed.share(1, 2)
    assert feed.loader == [1, 3, 5]


@pytest.mark.parametrize("shards", [4, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_hugging_face_stream_is_split_by_rank_and_worker(shards: int, workers: int) -> None:
    seen: list[int] = []
    for rank in range(2):
        feed = make_loaders(
            rows(25, shards), None, TrainerConfig(device="cpu", batch_size=2, num_workers=workers)
        ).train
        feed.share(rank, 2)
        feed.share(rank, 2)  # asked for again, it is not split again
        seen += [int(index) for batch in feed.loader for index in batch["id"]]
        with pytest.raises(TypeError, match="know only at its end" if workers else "have no length"):
            len(feed)
        feed.close()
    assert sorted(seen) == list(range(25))


def test_a_stream_that_is_split_already_stays_as_it_is_and_must_be_that_of_this_process() -> None:
    from datasets.distributed import split_dataset_by_node

    def feed() -> Feed:
        return make_loaders(split_dataset_by_node(rows(8, 2), 1, 2), None, TrainerConfig(device="cpu")).train

    made = feed()
    made.share(1, 2)
    assert sorted(int(index) for batch in made.loader for index in batch["id"]) == [4, 5, 6, 7]
    with pytest.raises(DataError, match="split for process 1 of 2, but this is process 0 of 2"):
        feed().share(0, 2)


def test_samplers_that_divide_themselves_are_told_the_rank() -> None:
    for workers in (0, 1):
        seen = []
        for rank in range(2):
            loader = DataLoader(list(range(16)), 4, sampler=RankedSampler(), num_workers=workers)
            feed = make_loaders(loader, None, TrainerConfig(device="cpu")).train
            feed.share(rank, 2)
            seen.append([int(index) for batch in feed.loader for index in batch])
            feed.close()
        assert seen == [list(range(0, 16, 2)), list(range(1, 16, 2))]


def test_what_ends_together_needs_no_agreement() -> None:
    assert ends_together(distributed())
    assert not ends_together(DataLoader(Divided()))
    assert not ends_together(DataLoader(Numbers(), 4, sampler=RankedSampler()))


class Noise(Divided):
    """Random samples."""

    def __iter__(self) -> Iterator[Any]:
        return (torch.rand(()) for _ in range(4))


def test_workers_of_an_iterable_dataset_draw_other_numbers_on_each_rank() -> None:
    drawn = []
    for rank in range(2):
        feed = make_loaders(Noise(), None, TrainerConfig(device="cpu", batch_size=1, num_workers=2)).train
        feed.share(rank, 2)
        drawn += [float(batch) for batch in feed.loader]
        feed.close()
    assert len(drawn) == len(set(drawn)) == 16


def case(ranks: int) -> dict[str, Any]:
    """Train with streams of other lengths on each process, without and with interruptions; return the samples."""
    kinds = {"hugging": lambda: rows(25, 5), "workers": lambda: rows(25, 5), "divided": Divided}
    found: dict[str, Any] = {}
    for kind, make in kinds.items():
        broken = () if kind == "workers" else ((f"{kind}-broken", (6, 9, 14)),)
        for name, ends in ((kind, (14,)), *broken):
            ids = {}
            for end in ends:
                model, steps = Noting(), Steps()
                settings = SETTINGS | {"num_workers": 2 if kind == "workers" else 0, "max_step": end}
                darkit.fit(model, make(), name=name, device_num=ranks, batch_size=2, callbacks=[steps], **settings)
                ids |= steps.ids
                torch.distributed.barrier()  # until the first has written the last checkpoint
            found[name] = {"ids": ids}
    rank = torch.distributed.get_rank()
    native = NativeData(None, None, TrainerConfig(device="cpu"))
    refused = {
        "shuffled": lambda: Agreement(DataLoader(rows(25, 5).shuffle(seed=rank))),
        "stateful": lambda: native.adopted(StatefulDataLoader(Stream())),
        "uneven": lambda: native.adopted(StatefulDataLoader(Divided())),
        "fit": lambda: darkit.fit(Base(), Stream(), device_num=ranks, device="cpu", max_step=2),
    }
    for name, call in refused.items():
        try:
            call()
        except DataError as error:
            found[name] = str(error)
    return found


def test_streams_of_unequal_length_end_together_on_all_processes_and_resume(zygote: Zygote, tmp_path: Path) -> None:
    """Per epoch 13 and 12 samples for the stream, in 7 and 6 batches; 10 and 7 for the other, in 5 and 4."""
    found = on_ranks(zygote, tmp_path, case)
    for kind, per_epoch, most in (("hugging", 6, 24), ("workers", 7, 25), ("divided", 4, 15)):
        steps = joined([one[kind] for one in found])
        assert list(steps) == list(range(1, 15)), "the longer one does not wait for the other"
        epochs = [[i for step in range(first, first + per_epoch) for i in steps[step]] for first in (1, 1 + per_epoch)]
        for epoch in epochs:
            assert len(set(epoch)) == len(epoch) == most, "no sample comes twice"
        if kind != "workers":
            assert joined([one[f"{kind}-broken"] for one in found]) == steps
    for one in found:
        assert "another seed, so that some samples would come twice and others never" in one["shuffled"]
        for name in ("stateful", "fit"):
            assert "Stream is an iterable dataset and would give each of the 2 processes the same" in one[name]
        assert "may get different numbers of batches from the StatefulDataLoader" in one["uneven"]


@pytest.mark.parametrize(
    ("settings", "divided"), [({}, False), ({"device_num": 2}, True), ({"num_nodes": 2}, True)], ids=str
)
def test_a_validation_is_divided_over_devices_and_over_nodes(settings: dict[str, int], divided: bool) -> None:
    loader = divisible(DataLoader(Numbered(12), batch_size=4), TrainerConfig(**settings))

    assert (shards_of(loader) is not None) == divided
