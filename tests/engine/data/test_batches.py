"""Batches that are made without a DataLoader: the same to the bit, the type and the strides."""

from __future__ import annotations

import collections
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate, random_split
from torch.utils.data._utils.collate import default_collate_fn_map

from darkit.engine.config import TrainerConfig
from darkit.engine.data.adopt import adopt, ordered_feed
from darkit.engine.data.arrays import Rows
from darkit.engine.data.batches import own_batches, stack
from darkit.engine.data.order import BatchOrder
from darkit.engine.data.validation import ValidationBatches

N = 10
FLOATS = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
Point = collections.namedtuple("Point", "x y")


def loader_of(dataset: Any, **settings: Any) -> DataLoader[Any]:
    """A loader in darkit's order, with batches of four."""
    order = BatchOrder(len(dataset), 4, 3)
    return ordered_feed(dataset, order, 0, TrainerConfig(device="cpu"), settings).loader


def same(one: Any, other: Any) -> bool:
    """Whether two batches have the same types, values, dtypes and strides."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        alike = one.dtype == other.dtype and one.stride() == other.stride() and one.storage_offset() == 0
        return alike and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


TENSORS: dict[str, Tensor] = {
    "numbers": FLOATS[:, 0],
    "rows": FLOATS,
    "doubles": FLOATS.double(),
    "bfloat16": FLOATS.bfloat16(),
    "complex": FLOATS.to(torch.complex64),
    "ids": torch.arange(N * 2).reshape(N, 2),
    "bytes": torch.arange(N, dtype=torch.uint8),
    "flags": FLOATS > 0,
    "turned": torch.arange(N * 3).reshape(3, N).T,
    "cut": torch.arange(N * 6).reshape(N, 6)[:, 1:5:2],
    "images": torch.randn(N, 3, 4, 4),
    "pixels": torch.randn(N, 3, 1, 1),
    "channels last": torch.randn(N, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    "volumes": torch.randn(N, 2, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d),
    "empty rows": torch.zeros(N, 0),
    "unusual": torch.arange(N).to(torch.uint16),
}


@pytest.mark.parametrize("name", TENSORS)
def test_batches_of_tensors_are_torchs(name: str) -> None:
    tensor = TENSORS[name]
    for dataset in (TensorDataset(tensor, FLOATS), Rows(tensor), Rows({"x": tensor, "y": FLOATS})):
        loader = loader_of(dataset)
        ours = own_batches(loader)
        assert ours is not None
        assert same(list(ours), list(loader))


@pytest.mark.parametrize(
    "indices",
    [[4, 2, 2, 9, 0], range(5), torch.arange(5), numpy.arange(5), numpy.arange(5, dtype=numpy.int32), [-1, 0, 3, 1, 2]],
    ids=["list", "range", "tensor", "array", "int32", "negative"],
)
def test_batches_of_a_subset_are_torchs(indices: Any) -> None:
    dataset = TensorDataset(FLOATS, torch.arange(N))
    for chosen in (Subset(dataset, indices), Subset(random_split(dataset, [6, 4])[0], [0, 3, 1, 5, 2])):
        loader = loader_of(chosen)
        assert same(list(own_batches(loader) or ()), list(loader))


def test_rows_of_tensors_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = loader_of(Subset(TensorDataset(FLOATS, FLOATS), list(range(N))))
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda *given: pytest.fail("one sample was loaded"))
    assert len(list(own_batches(loader) or ())) == 3


def test_a_batch_does_not_share_memory_with_the_data() -> None:
    data = FLOATS.clone()
    for batch in own_batches(loader_of(Rows(data))) or ():
        batch.zero_()
    assert torch.equal(data, FLOATS)


class Doubled(TensorDataset):
    """Changes its samples."""

    def __getitem__(self, index: Any) -> Any:
        return tuple(part * 2 for part in super().__getitem__(index))


class Many(Dataset[Any]):
    """Loads a batch at once, and counts."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Tensor:
        raise AssertionError

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        self.asked.append(indices)
        return [FLOATS[index] for index in indices]


class Tagged(Tensor):
    """A subclass, whose rows are of that class too."""


@pytest.mark.parametrize(
    "dataset",
    [
        Doubled(FLOATS),
        [(row, {"label": 1}) for row in FLOATS],
        TensorDataset(FLOATS.clone().requires_grad_()),
        TensorDataset(FLOATS.as_subclass(Tagged)),
        Rows(torch.eye(N).to_sparse().to_dense()),
    ],
    ids=["subclass", "list", "gradient", "tagged", "dense"],
)
def test_other_datasets_are_asked_for_their_samples(dataset: Any) -> None:
    loader = loader_of(dataset)
    ours = list(own_batches(loader) or ())
    assert same(ours, list(loader))
    first, theirs = ours[0], next(iter(loader))
    if isinstance(first, list) and isinstance(first[0], Tensor):
        assert first[0].requires_grad == theirs[0].requires_grad


def test_a_dataset_may_load_a_batch_at_once() -> None:
    dataset = Many()
    loader = loader_of(dataset)
    assert same(list(own_batches(loader) or ()), list(loader))
    assert len(dataset.asked) == 6


def test_a_collate_fn_of_ones_own_gets_the_samples() -> None:
    loader = loader_of(TensorDataset(FLOATS), collate_fn=len)
    assert list(own_batches(loader) or ()) == [4, 4, 2]


SAMPLES: dict[str, list[Any]] = {
    "tensors": list(FLOATS),
    "tuples": [(row, row[0]) for row in FLOATS],
    "labels": [(row, index) for index, row in enumerate(FLOATS)],
    "one": [(FLOATS[0], FLOATS[1])],
    "lists": [[row, row] for row in FLOATS],
    "dicts": [{"x": row, "y": 1.5} for row in FLOATS],
    "named": [Point(row, row) for row in FLOATS],
    "nested": [((row, row), row) for row in FLOATS],
    "arrays": [(row.numpy(), 2) for row in FLOATS],
    "texts": [("a", row) for row in FLOATS],
    "images": list(torch.randn(3, 2, 4, 4).contiguous(memory_format=torch.channels_last)),
    "parts": [(row[1:], row[::2]) for row in FLOATS],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_collated_as_torch_does(name: str) -> None:
    assert same(stack(SAMPLES[name]), default_collate(SAMPLES[name]))


@pytest.mark.parametrize(
    "samples",
    [
        [torch.zeros(1), torch.zeros(2)],
        [(torch.zeros(1),), (torch.zeros(1), torch.zeros(1))],
        [torch.zeros(2).to_sparse()] * 2,
        [(torch.zeros(2).to_sparse(),)] * 2,
        [object()],
    ],
    ids=["shapes", "lengths", "sparse", "sparse in tuples", "object"],
)
def test_what_torch_cannot_collate_fails_in_its_words(samples: list[Any]) -> None:
    errors = []
    for collate in (default_collate, stack):
        with pytest.raises((RuntimeError, TypeError)) as caught:
            collate(samples)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_a_registered_way_to_collate_tensors_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: Callable[..., Any] = lambda batch, *, collate_fn_map=None: len(batch)  # noqa: E731
    monkeypatch.setitem(default_collate_fn_map, Tensor, registered)
    assert list(own_batches(loader_of(Rows(FLOATS))) or ()) == [4, 4, 2]


@pytest.mark.parametrize("settings", [{"num_workers": 1}, {"pin_memory": True}])
def test_other_loaders_are_left_to_torch(settings: dict[str, Any]) -> None:
    order = BatchOrder(N, 4, 3)
    assert own_batches(DataLoader(Rows(FLOATS), batch_sampler=order, **settings)) is None
    assert own_batches(DataLoader(Rows(FLOATS), batch_size=4)) is None


class Exhausted(Dataset[Any]):
    """A dataset that raises StopIteration for one of its samples, by itself, in batches, or while it is collated."""

    def __init__(self, way: str) -> None:
        if way == "batch":
            self.__getitems__ = lambda indices: [self.sample(index) for index in indices]
        self.way = way

    def __len__(self) -> int:
        return N

    def sample(self, index: int) -> Tensor:
        return next(iter(())) if index == 7 else torch.ones(1) * index

    def __getitem__(self, index: int) -> Tensor:
        return torch.ones(1) * index if self.way == "collate" else self.sample(index)

    def collate_fn(self, samples: list[Tensor]) -> Tensor:
        return torch.stack([self.sample(int(sample)) for sample in samples])


@pytest.mark.parametrize("way", ["sample", "batch", "collate"])
@pytest.mark.parametrize("settings", [{}, {"pin_memory": True}, {"num_workers": 1}], ids=str)
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_a_sample_that_raises_stop_iteration_does_not_end_an_epoch(
    way: str, settings: dict[str, Any], validates: bool
) -> None:
    data = Exhausted(way)
    loader = DataLoader(data, batch_size=4, collate_fn=data.collate_fn if way == "collate" else None, **settings)
    feed = adopt(loader, TrainerConfig(device="cpu"))
    try:
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            list(ValidationBatches(feed.loader, SimpleNamespace(signs=0)) if validates else feed)
    finally:
        feed.close()
