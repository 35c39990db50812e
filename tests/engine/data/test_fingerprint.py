"""The fingerprint of data: equal for equal samples in any process, different otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from darkit.engine.config import TrainerConfig
from darkit.engine.data.fingerprint import describe_data
from darkit.engine.data.loaders import make_loaders
from darkit.engine.device import seed_generators
from darkit.runs.groups import find_groups
from tests.engine.parts import Numbers, Stream, made, train, xy

CONFIG = TrainerConfig(device="cpu", batch_size=4)


def described(data: Any) -> dict[str, Any]:
    return describe_data(make_loaders(data, None, CONFIG))


SAMPLES: list[Any] = [
    1,
    2,
    1.5,
    True,
    None,
    "text",
    b"bytes",
    torch.tensor(1),
    torch.tensor([1]),
    torch.tensor([1.0]),
    torch.tensor([[1.0]]),
    torch.ones(2, dtype=torch.bfloat16),
    torch.empty(0),
    torch.tensor([True]),
    numpy.arange(3000),
    numpy.arange(3000) + (numpy.arange(3000) == 1500),
    {"a": 1},
    {"b": 1},
    [1, 2],
]


def test_every_kind_of_sample_has_a_fingerprint_of_its_own_that_stays() -> None:
    prints = [described([sample])["fingerprint"] for sample in SAMPLES]
    assert len(set(prints)) == len(SAMPLES)
    assert prints == [described([sample])["fingerprint"] for sample in SAMPLES]


def test_objects_with_an_address_in_their_text_count_by_their_class() -> None:
    class Own:
        pass

    assert described([Own()]) == described([Own()])


def test_at_most_64_samples_are_looked_at_and_they_are_spread_over_all() -> None:
    for length in (1, 63, 64, 65, 127, 128, 1000):
        data = Numbers(length)
        facts = described(data)
        assert facts["samples"] == length
        assert len(data.asked) == min(length, len(data.asked)) <= 64
        assert data.asked[-1] >= length - -(-length // 64)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_with_torchs_own_samplers_is_described_by_its_samples(shuffle: bool) -> None:
    loader = DataLoader(Numbers(), batch_size=4, shuffle=shuffle)
    assert described(loader) == described(Numbers())


@pytest.mark.parametrize(
    ("data", "kind"),
    [(Stream(), "Stream"), (DataLoader(Numbers(), sampler=[1, 0], batch_size=4), "Numbers")],
    ids=["stream", "loader"],
)
def test_data_that_darkit_does_not_order_is_only_named(data: Any, kind: str) -> None:
    assert described(data) == {"kind": kind}


def test_a_sample_is_described_as_data() -> None:
    image = {"dtype": "float32", "shape": [3, 2]}
    label = {"dtype": "int64", "shape": []}
    assert described([(torch.ones(3, 2), torch.tensor(1))])["sample_parts"] == [image, label]
    named = described([{"x": torch.ones(3, 2), "name": "a", "more": [torch.tensor(1)]}])["sample_parts"]
    assert named == {"fields": {"x": image, "name": {"type": "str"}, "more": [label]}}


@pytest.mark.parametrize(
    ("task", "recorded"), [("masked", "masked"), ("mine", None), (numpy.ones(2), None), ([], None)]
)
def test_a_task_that_darkit_knows_is_recorded(task: Any, recorded: str | None) -> None:
    data = Numbers()
    data.task = task  # type: ignore[attr-defined]
    assert described(data).get("task") == recorded


def test_a_run_records_its_data() -> None:
    facts = train(made(), xy()).info["data"]
    assert (facts["kind"], facts["samples"]) == ("TensorDataset", 16)
    assert facts == train(made(), xy()).info["data"]
    assert facts["fingerprint"] != train(made(), xy(12)).info["data"]["fingerprint"]


class Drawn(Dataset[Any]):
    """Inputs drawn anew at each access."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(self.draw()).reshape(1).float(), torch.ones(1)


DRAWS = [lambda: torch.rand(1).item(), lambda: numpy.random.randn(), random.random]


@pytest.mark.parametrize("draw", DRAWS, ids=["torch", "numpy", "random"])
def test_samples_drawn_at_random_leave_the_callers_generators_as_they_were(draw: Callable[[], Any]) -> None:
    seed_generators(0)
    expected = draw()
    seed_generators(0)
    described(Drawn(draw))
    assert draw() == expected


@pytest.mark.parametrize("draw", DRAWS, ids=["torch", "numpy", "random"])
def test_runs_on_samples_drawn_at_random_differ_in_the_seed_alone(draw: Callable[[], Any]) -> None:
    for seed in (0, 1):
        train(made(width=1), Drawn(draw), seed=seed, name=f"drawn-seed={seed}", max_step=2)
    assert list(find_groups([])) == ["drawn"]
