"""Lazy modules, sparse samples and buffers, and arrays of every kind train, are saved, resumed and compared."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from darkit.core import Predicter
from darkit.engine.checkpoints.difference import differences
from darkit.engine.data.arrays import as_dataset
from darkit.errors import DataError, ModelError
from tests.engine.parts import run_names, train, xy
from tests.engine.resuming import assert_same, break_off, run_one

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")


class Lazy(nn.Module):
    """Learns its input's width from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.LazyLinear(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


class Graph(nn.Module):
    """Has a sparse buffer of each layout, and takes sparse samples too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("edges", torch.eye(4).to_sparse())
        self.register_buffer("rows", torch.eye(4).to_sparse_csr())

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        x = x.to_dense() if x.layout is not torch.strided else x
        return F.mse_loss(self.layer(torch.sparse.mm(self.edges, x.T).T), y)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.sparse.mm(self.rows, x.T).T)


class SparseSamples(Dataset[Any]):
    """Rows without their zeros."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        x, y = xy()
        return x[index].relu().to_sparse(), y[index]


class Collated(SparseSamples):
    """Makes sparse batches of them."""

    def collate_fn(self, samples: list[Any]) -> Any:
        return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


def test_a_lazy_model_that_has_seen_a_batch_trains_and_predicts() -> None:
    torch.manual_seed(1)
    model = Lazy()
    model(xy()[0])
    run = train(model, xy(), xy(), loss=F.mse_loss, max_step=3, name="lazy")
    assert run.status == "finished"
    model.eval()
    with torch.no_grad():
        assert torch.equal(Predicter.from_pretrained("lazy", "cpu").predict(xy()[0]), model(xy()[0]))


def test_a_lazy_model_that_has_seen_none_is_refused_and_leaves_nothing() -> None:
    with pytest.raises(ModelError, match=r"first\.weight of Lazy is uninitialized: call the model with one batch"):
        train(Lazy(), xy(), loss=F.mse_loss)
    assert run_names() == []


def test_sparse_samples_and_buffers_train_and_resume_bit_for_bit() -> None:
    options: dict[str, Any] = {"model": Graph, "max_step": 5, "batch_size": 4}
    straight = run_one(Collated, "straight", **options)
    assert_same(straight, run_one(Collated, break_off(straight, 2), resume=True, **options), 5)
    assert straight.info["data"]["samples"] == 16


@pytest.mark.parametrize("data", [SparseSamples, lambda: (xy()[0].relu().to_sparse(), xy()[1])])
def test_sparse_samples_that_torch_cannot_put_into_batches_are_refused_and_leave_nothing(data: Any) -> None:
    for given in (data(), {"train": xy(), "val": data()}):
        with pytest.raises(DataError, match=r"samples have sparse_coo tensors, .* give the dataset a collate_fn"):
            train(Graph(), given)
    assert run_names() == []


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_sparse_csc"])
def test_sparse_tensors_differ_by_their_values(layout: str) -> None:
    one, other = (getattr(torch.diag(torch.tensor([1.0, value])), layout)() for value in (2.0, 2.5))
    assert list(differences({"a": one}, {"a": one})) == []
    assert [deviation for _, deviation in differences({"a": one}, {"a": other})] == [0.5]
    assert list(differences({"a": one}, {"a": one.to_dense()})) == [("a", torch.inf)]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (numpy.ones((3, 2)), torch.float32),
        (numpy.ones((3, 2), "float16"), torch.float16),
        (numpy.ones(3, "int64"), torch.int64),
        (numpy.ones(3, "uint8"), torch.uint8),
        (numpy.ones(3, "bool"), torch.bool),
        (numpy.arange(6.0)[::-2], torch.float32),
        (numpy.broadcast_to(numpy.float64(2), (3,)), torch.float32),
        (numpy.ones(3, ">f4"), torch.float32),
    ],
)
def test_an_array_is_the_tensor_of_its_values(array: Any, dtype: torch.dtype) -> None:
    found: Any = as_dataset(array, "training")
    assert len(found) == 3
    assert found[0].dtype == dtype
    assert [found[index].double().tolist() for index in range(3)] == array.astype("float64").tolist()
