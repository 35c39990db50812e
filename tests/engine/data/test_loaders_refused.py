"""What is no data, or too little of it, is refused in a sentence and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
)

from darkit.engine.config import TrainerConfig
from darkit.engine.data.loaders import make_loaders
from darkit.errors import DataError
from tests.engine.parts import DataModule, Numbers, made, run_names, train, xy


class Unsized(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


class Empty(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class TwoValidations(DataModule):
    def val_dataloader(self) -> Any:
        return [DataLoader(self.samples, batch_size=4)] * 2


EMPTY = {
    "map-style dataset": lambda: Numbers(0),
    "list": list,
    "tuple of tensors": lambda: (torch.empty(0, 4), torch.empty(0, 1)),
    "loader": lambda: DataLoader(Numbers(0), batch_size=4),
    "loader that drops all": lambda: DataLoader(Numbers(3), batch_size=4, drop_last=True),
    "iterable dataset": Empty,
    "loader of a stream": lambda: DataLoader(Empty(), batch_size=4),
    "LightningDataModule": lambda: DataModule(0),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_empty_training_data_is_refused_and_leaves_nothing(kind: str) -> None:
    with pytest.raises(DataError, match="data is empty"):
        train(made(), EMPTY[kind]())
    with pytest.raises(DataError, match="data is empty"):
        train(made(), {"train": EMPTY[kind]()}) if kind != "LightningDataModule" else train(made(), DataModule(0))
    assert run_names() == []


@pytest.mark.parametrize("kind", [kind for kind in EMPTY if kind != "LightningDataModule"])
def test_empty_validation_data_is_refused_and_leaves_nothing(kind: str) -> None:
    with pytest.raises(DataError, match="data is empty"):
        train(made(), xy(), EMPTY[kind]())
    with pytest.raises(DataError, match="data is empty"):
        train(made(), {"train": xy(), "val": EMPTY[kind]()})
    assert run_names() == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "must be a Dataset, a list of samples, .* not NoneType"),
        (3, "not int"),
        ("train.txt", "not str"),
        (torch.ones(()), "is a single number"),
        (numpy.array(["a", "b"]), "has an array of dtype <U1"),
        (numpy.ma.masked_equal(numpy.arange(4), 2), "has a masked array, whose mask would be lost"),
        (numpy.array([{}, None]), "has an array of dtype object"),
        ((numpy.ones((4, 2)), torch.ones(3)), r"must have the same length, but have \[3, 4\]"),
        ({"x": torch.ones(4), "y": numpy.ones(3)}, r"must have the same length, but have \[3, 4\]"),
        ((), "not tuple"),
        ((torch.ones(4, 4), [1, 2]), "not tuple"),
        ((torch.ones(4, 4), torch.ones(3)), r"must have the same length, but have \[3, 4\]"),
        ({"x": torch.ones(4), "y": [1, 2, 3, 4]}, r"needs the key 'train' .* but has \['x', 'y'\]"),
        ((torch.ones(()), torch.ones(3)), r"must have the same length, but have \[0, 3\]"),
        ({"training": [1]}, r"needs the key 'train' .* but has \['training'\]"),
        ({}, "needs the key 'train'"),
        ([DataLoader(Numbers())] * 2, "A run needs a single training loader, but the data is a list of 2"),
        (Unsized(), "Unsized has no length"),
        (iter([1]), "not list_iterator"),
    ],
)
def test_unknown_kinds_of_data_are_refused_and_leave_nothing(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        train(made(), data)
    assert run_names() == []


@pytest.mark.parametrize(
    "val", [3, "val.txt", torch.ones(()), {"train": [1]}, (torch.ones(2), torch.ones(3)), Unsized()]
)
def test_unknown_kinds_of_validation_data_are_refused_and_leave_nothing(val: Any) -> None:
    with pytest.raises(DataError, match="validation data"):
        train(made(), xy(), val)
    assert run_names() == []


def test_two_validation_loaders_are_refused() -> None:
    with pytest.raises(DataError, match="single validation loader, but val_dataloader returned 2"):
        train(made(), TwoValidations())
    assert run_names() == []


@pytest.mark.parametrize("short", ["training", "validation"])
def test_fewer_samples_than_devices_are_refused(short: str) -> None:
    few, many = xy(1), xy(8)
    data, val = (few, many) if short == "training" else (many, few)
    with pytest.raises(
        DataError, match="TensorDataset of 1 samples is too small for 2 devices: each needs at least one"
    ):
        make_loaders(data, val, TrainerConfig(device_num=2))


@pytest.mark.few(2)
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("purpose", ["training", "validation"])
def test_samples_of_different_shapes_are_refused_in_one_sentence(purpose: str, workers: int) -> None:
    even, ragged = ([(torch.zeros(n, 4), torch.zeros(n, 1)) for n in lengths] for lengths in ([3] * 8, [*[3] * 7, 4]))
    data = (ragged, None) if purpose == "training" else (even, ragged)
    with pytest.raises(DataError, match=rf"The {purpose} samples cannot be collated into a batch .*collate_fn"):
        train(made(), *data, max_step=3, eval_step_interval=1, num_workers=workers)
