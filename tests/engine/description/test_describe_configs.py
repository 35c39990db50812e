"""A config, and arguments that JSON would change, come back as they were, or it is said at once that they do not."""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy
import omegaconf
import pydantic
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.errors import ReproductionWarning
from tests.engine.description.models import Configured, Listed, Sloped, X, Y, described, predicted_as_trained
from tests.engine.parts import train


class Aliased(pydantic.BaseModel):
    width: int = pydantic.Field(3, alias="w")
    inner: Any = None


@pytest.mark.parametrize(
    "config",
    [
        Aliased(w=5),
        SimpleNamespace(width=2, inner=SimpleNamespace(deep=(1, {2}))),
        argparse.Namespace(width=2, inner=argparse.Namespace(deep={1: "x"})),
    ],
)
def test_aliases_and_namespaces_in_namespaces_come_back(config: Any) -> None:
    assert predicted_as_trained(Configured(config)).config == config


def test_sampled_numbers_integer_keys_and_tuples_come_back_as_they_were() -> None:
    sizes = [numpy.int64(4), numpy.random.default_rng(0).choice([3, 5])]
    model = Listed(sizes, {1: "xx", 2: "y"}, (3, 4))
    rebuilt: Any = predicted_as_trained(model)
    assert (rebuilt.sizes, rebuilt.names, rebuilt.pair) == ([4, int(sizes[1])], {1: "xx", 2: "y"}, (3, 4))


@dataclass
class Loose:
    """Fields with uninformative annotations."""

    width: Any = 4
    table: dict = field(default_factory=dict)  # type: ignore[type-arg]
    shape: Any = None


@pytest.mark.parametrize(
    "config",
    [
        Loose(numpy.int64(3), {1: (1, 2), 2: {0.5: "a"}}, torch.Size([2, 3])),
        Loose(3, {"": (1,), "a/b": {3}, "~": frozenset("x")}, 1 + 2j),
        {"width": 3, "table": {8: [(9,)]}},
        SimpleNamespace(width=numpy.int32(3), weights=numpy.array([1.0, 2.0])),
        argparse.Namespace(width=3, weights=torch.tensor([1.0, 2.0], dtype=torch.float64)),
        omegaconf.OmegaConf.create({"width": 3, "inner": {"names": ["a", "b"]}, "again": "${width}"}),
    ],
    ids=["numbers", "keys", "dict", "SimpleNamespace", "Namespace", "DictConfig"],
)
def test_a_config_comes_back_with_the_types_it_had(config: Any) -> None:
    found = predicted_as_trained(Configured(config)).config  # type: ignore[union-attr]
    assert type(found) is type(config)
    if isinstance(config, Loose):
        assert found == config
        assert type(found.shape) in (complex, tuple)
    elif not isinstance(config, dict | omegaconf.DictConfig):
        assert type(found.weights) is type(config.weights)
        assert found.weights.dtype == config.weights.dtype
    elif isinstance(config, dict):
        assert found == config
    else:
        assert found.inner.names == ["a", "b"]
        assert found.again == 3


class Own:
    """A value of a custom class."""

    def __init__(self, width: int) -> None:
        self.width = width


class Deep(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(4, config.width.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_field_that_json_changes_is_named_at_once() -> None:
    with pytest.warns(ReproductionWarning, match=r"config: AttributeError|JSON changes 'width'"):
        train(Deep(Loose(Own(3))), (X, Y.expand(-1, 3)), loss=F.mse_loss, max_step=1)

    class Attributes(dict):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            return self[name]

    found = described(Configured(Attributes(width=3)))
    assert found.kind == "dict"  # the outputs are proven to be the same, though the class is not


def test_recorded_values_are_json_and_are_read_back() -> None:
    found = described(Listed([4, 3], {1: "x"}, (1, 2)))
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    assert found.types == {"/names": "int keys", "/pair": "tuple"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described(Sloped())


@dataclass
class Part:
    width: int = 8
    dims: tuple[int, int] = (4, 1)


@dataclass
class Whole:
    part: Part = field(default_factory=Part)
    slope: float = 0.01


class ByAnotherName(nn.Module):
    """Keeps its config under the name of the constructor's parameter instead of ``config``."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.layers = nn.Sequential(nn.Linear(4, cfg.part.width), nn.Linear(cfg.part.width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * self.cfg.slope


@pytest.mark.parametrize(
    "cfg", [Whole(Part(6), 0.5), SimpleNamespace(part=SimpleNamespace(width=6), slope=0.5)], ids=["dataclass", "names"]
)
def test_a_config_that_is_kept_under_the_parameters_name_comes_back(cfg: Any) -> None:
    model = predicted_as_trained(ByAnotherName(cfg))
    assert model.cfg.part.width == 6
