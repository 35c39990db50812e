"""Warnings before the first step about data that cannot be resumed exactly."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from darkit.engine.config import TrainerConfig
from darkit.engine.data.exactness import reasons
from darkit.engine.data.loaders import make_loaders
from darkit.errors import ReproductionWarning
from tests.engine.parts import Numbers, Stream, made, train, xy
from tests.engine.resuming import Augmented, Counting, OwnNoise, OwnSampler, hugging, shuffling, weighted


def said(data: Any, val: Any = None, **settings: Any) -> list[str]:
    config = TrainerConfig(device="cpu", batch_size=4, **settings)
    loaders = make_loaders(data, val, config)
    found = list(reasons(loaders, config))
    loaders.close()
    return found


class OwnLoader(DataLoader[Any]):
    """A custom subclass."""


class Cycling(OwnSampler):
    """A sampler whose iterator spans epochs."""

    def __init__(self) -> None:
        self.places = itertools.cycle(range(5))


class Noisy(OwnSampler):
    """A sampler with system randomness."""

    def __init__(self) -> None:
        self.system = random.SystemRandom()


def padded(samples: list[Any]) -> Any:
    return torch.utils.data.default_collate(samples)


EXACT: dict[str, Callable[[], Any]] = {
    "tensors": xy,
    "shuffling loader": lambda: shuffling(num_workers=2, persistent_workers=True),
    "weighted": lambda: weighted(num_workers=2, persistent_workers=True),
    "own counter": lambda: DataLoader(Augmented(), sampler=Counting(), num_workers=1),
    "stream": lambda: DataLoader(Stream(), batch_size=4, num_workers=2),
    "Hugging Face": lambda: hugging(7),
    "own generators": OwnNoise,
}


@pytest.mark.parametrize("kind", EXACT)
def test_data_that_resumes_exactly_gives_no_warning(kind: str) -> None:
    assert said(EXACT[kind](), EXACT[kind](), num_workers=0) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: weighted(num_workers=1, in_order=False), "has in_order=False"),
        (lambda: DataLoader(Numbers(), 4, num_workers=1, in_order=False), "has in_order=False"),
        (lambda: DataLoader(Stream(), 4, num_workers=1, persistent_workers=True), "has persistent_workers=True"),
        (lambda: OwnLoader(Numbers(), 4, num_workers=1, persistent_workers=True), "has persistent_workers=True"),
        (lambda: DataLoader(OwnNoise(), 4, num_workers=1), r"own copy of the generator OwnNoise\.numpy"),
        (lambda: DataLoader(Numbers(), 4, sampler=Cycling()), r"Cycling\.places is a cycle"),
        (lambda: DataLoader(Numbers(), 4, sampler=Noisy()), r"Noisy\.system uses system randomness"),
    ],
)
def test_each_inexactness_of_a_loader_gives_one_warning(make: Callable[[], Any], words: str) -> None:
    for found in (said(make()), said(xy(), make())):
        assert any(re.search(words, one) for one in found), found
        assert all(one.endswith(".") for one in found)


def test_compiling_for_possibly_many_shapes_gives_a_warning() -> None:
    assert said(xy(), xy(), compile=True) == []
    for data in (weighted(), DataLoader(Numbers(), 4, collate_fn=padded)):
        (sentence,) = said(data, compile=True)
        assert sentence.startswith("compile=True recompiles for batches of new shapes")


def test_a_run_says_it_once_and_before_its_first_step() -> None:
    with pytest.warns(ReproductionWarning, match=r"Cycling\.places is a cycle") as caught:
        run = train(made(), DataLoader(Numbers(), 4, sampler=Cycling()), max_step=2)
    assert len([one for one in caught if one.category is ReproductionWarning and "Cycling" in str(one.message)]) == 1
    assert run.status == "finished"
