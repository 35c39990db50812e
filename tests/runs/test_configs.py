from __future__ import annotations

import enum
import json
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy
import pytest
import torch

from darkit.runs import files
from darkit.runs.configs import plain, public_values, recorded_settings
from tests.runs.parts import line_of, python


class Kind(enum.Enum):
    FAST = "fast"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


def relu(x: float) -> float:
    return max(x, 0)


def test_class_attributes_without_annotation_are_values_and_the_nearest_class_wins() -> None:
    @dataclass
    class Base:
        width: int = 4
        lr = 1e-3
        device = "cpu"

    class Config(Base):
        device = "cuda"
        depth = 2

    assert public_values(Config(width=8)) == {"width": 8, "lr": 1e-3, "device": "cuda", "depth": 2}


def test_a_value_set_on_the_instance_comes_over_its_classes() -> None:
    class Config:
        lr = 1e-3

    config = Config()
    config.lr = 0.5
    config.extra = [1, (2, 3)]  # type: ignore[attr-defined]
    assert public_values(config) == {"lr": 0.5, "extra": [1, [2, 3]]}
    assert public_values(Config()) == {"lr": 1e-3}


def test_behaviour_and_private_names_are_no_values() -> None:
    @dataclass
    class Config:
        width: int = 4
        shared: ClassVar[int] = 7
        _secret: int = 1
        late: int = field(init=False)

        class Inner:
            pass

        def method(self) -> int:
            return 1

        @property
        def double(self) -> int:
            raise AssertionError("a property must not be asked")

        @cached_property
        def triple(self) -> int:
            raise AssertionError("a property must not be asked")

        @classmethod
        def make(cls) -> None: ...

        @staticmethod
        def help() -> None: ...

        function = lambda self: 1  # noqa: E731

    assert public_values(Config()) == {"width": 4, "shared": 7}


def test_a_function_is_a_value_where_it_is_not_the_default() -> None:
    @dataclass
    class Config:
        activation: Callable[[float], float] = relu
        norm: type = torch.nn.LayerNorm

    assert public_values(Config()) == {}
    assert public_values(Config(abs, torch.nn.BatchNorm1d)) == {
        "activation": "builtins.abs",
        "norm": "torch.nn.modules.batchnorm.BatchNorm1d",
    }


def test_configs_of_every_kind_give_their_values() -> None:
    @dataclass(frozen=True, slots=True)
    class Slots:
        width: int
        inner: Any = None

    class PlainSlots:
        __slots__ = ("unset", "width")

        def __init__(self) -> None:
            self.width = 4

    class Typed(NamedTuple):
        width: int = 4

    for config in (
        Slots(4),
        PlainSlots(),
        Typed(),
        namedtuple("Old", "width")(4),
        SimpleNamespace(width=4),
        MappingProxyType({"width": 4}),
    ):
        values = public_values(config)
        assert values.pop("inner", None) is None
        assert values == {"width": 4}


def test_values_become_json_all_the_way_down(tmp_path: Path) -> None:
    @dataclass
    class Inner:
        path: Path
        kind: Kind = Kind.FAST
        depth = 2

    class Text:
        def __str__(self) -> str:
            return "as text"

    config = {
        "inner": Inner(Path("/data")),
        "list": [Inner(Path("a")), {1: Kind.PAIR}],
        "level": Level.HIGH,
        "numbers": [numpy.float32(0.5), numpy.int64(3), numpy.bool_(True), torch.tensor(2.5), numpy.float64(0.1)],
        "shape": torch.Size([2, 3]),
        "range": range(3),
        "dtype": torch.float32,
        "bytes": b"x",
        "text": Text(),
        "module": torch.nn.ReLU(),
        "none": None,
    }
    wanted = {
        "inner": {"depth": 2, "path": "/data", "kind": "fast"},
        "list": [{"depth": 2, "path": "a", "kind": "fast"}, {"1": [1, 2]}],
        "level": 3,
        "numbers": [0.5, 3, True, 2.5, 0.1],
        "shape": [2, 3],
        "range": [0, 1, 2],
        "dtype": "torch.float32",
        "bytes": "b'x'",
        "text": "as text",
        "module": "ReLU()",
        "none": None,
    }
    assert public_values(config) == wanted
    assert json.loads(json.dumps(public_values(config))) == wanted
    files.write_json(tmp_path / "config.json", public_values(config))
    assert files.read_json(tmp_path / "config.json") == wanted


@pytest.mark.parametrize("value", [True, 3, 0.5, "a", None, [1, [2]], {"a": {"b": [None]}}])
def test_what_is_json_already_stays_as_it_is(value: Any) -> None:
    assert plain(value) == value


def test_a_set_looks_the_same_in_every_process() -> None:
    script = """
        from darkit.runs.configs import plain
        print(plain({"adam", "sgd", "lion", "muon", "rmsprop"}), flush=True)
    """
    seen = set()
    for _ in range(3):  # each with hashes of its own
        with python(script) as process:
            seen.add(line_of(process))
    assert seen == {"['adam', 'lion', 'muon', 'rmsprop', 'sgd']"}


@dataclass
class _Trainer:
    name: str
    seed: int = 0
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    layers: list[int] = field(default_factory=list)


def test_only_settings_that_are_not_as_by_default_are_recorded_as_given() -> None:
    assert recorded_settings(_Trainer("a")) == {"seed": 0, "settings_given": ["name"]}
    given = _Trainer("a", seed=3, betas=(0.9, 0.5), layers=[1])
    assert recorded_settings(given) == {"seed": 3, "settings_given": ["name", "seed", "betas", "layers"]}
