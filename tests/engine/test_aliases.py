"""Usual names of other libraries mean darkit's settings; numbers of NumPy and torch are the numbers they are."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from darkit.engine.aliases import ALIASES
from darkit.engine.config import TrainerConfig, with_overrides
from darkit.errors import ConfigError
from tests.engine.parts import made, run_names, train, xy

FIELDS = {field.name: field.default for field in dataclasses.fields(TrainerConfig)}
USABLE = {alias: field for alias, field in ALIASES.items() if field in FIELDS}
GUIDES = [Path(__file__).parents[2] / "docs" / name for name in ("guide.md", "guide.zh.md")]


def another(field: str, more: int = 1) -> Any:
    default = FIELDS[field]
    return (not default) if isinstance(default, bool) else (default or 0) + more


@pytest.mark.parametrize(("alias", "field"), USABLE.items())
def test_an_alias_sets_its_field(alias: str, field: str) -> None:
    value = another(field)
    assert getattr(TrainerConfig(**{alias: value}), field) == value
    assert getattr(with_overrides(TrainerConfig(), {alias: value}), field) == value
    assert getattr(TrainerConfig(**{alias: value, field: value}), field) == value, "twice the same is once"
    if not isinstance(value, bool):
        for make in (lambda given: TrainerConfig(**given), lambda given: with_overrides(TrainerConfig(), given)):
            with pytest.raises(ConfigError, match=rf"are the same setting \({field}\) with different values"):
                make({alias: value, field: another(field, 2)})


def test_no_alias_hides_a_field() -> None:
    assert not set(ALIASES) & set(FIELDS)


def test_the_guides_name_every_alias() -> None:
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        assert [alias for alias, field in USABLE.items() if f"`{alias}`" not in text] == []


def test_a_run_is_trained_with_the_value_of_an_alias() -> None:
    run = train(made(), xy(), max_step=3, max_steps=3, learning_rate=0.25)
    assert run.details.step == 3
    assert run.log()["lr"].to_list() == [0.25] * 3
    assert (run.trainer_config["max_step"], run.trainer_config["lr"]) == (3, 0.25)


def test_two_names_with_different_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lr=0.5 and learning_rate=0.25|learning_rate=0.25 and lr=0.5"):
        train(made(), xy(), learning_rate=0.25, lr=0.5)
    assert run_names() == []


def test_subclasses_accept_aliases_too_and_keep_their_fields() -> None:
    class Plain(TrainerConfig):
        lr = 0.5

    @dataclass
    class Own(TrainerConfig):
        learning_rate: float = 0.125

    assert Plain(max_steps=7).max_step == 7
    assert (Plain(learning_rate=1).lr, Plain().lr) == (1, 0.5)
    assert (Own(learning_rate=0.25).learning_rate, Own(learning_rate=0.25).lr) == (0.25, FIELDS["lr"])


def test_an_attribute_under_an_aliass_name_that_training_would_ignore_is_refused() -> None:
    class Shadow(TrainerConfig):
        max_steps = 50

    late: Any = TrainerConfig(max_step=3)
    late.learning_rate = 0.5
    for config, said in ((Shadow(), "sets max_steps=50, but training uses max_step=1000"), (late, "learning_rate=0.5")):
        with pytest.raises(ConfigError, match=re.escape(said)):
            train(made(), xy(), config=config)
    assert run_names() == []


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        ("max_step", numpy.int64(3), 3),
        ("max_step", numpy.array(3), 3),
        ("batch_size", torch.tensor(4), 4),
        ("seed", numpy.uint8(5), 5),
        ("keep_last", numpy.int32(2), 2),
        ("lr", numpy.float32(0.5), 0.5),
        ("lr", numpy.float64(0.5), 0.5),
        ("weight_decay", torch.tensor(0.25), 0.25),
        ("gradient_clip", numpy.int64(1), 1),
        ("tensorboard", numpy.bool_(False), False),
    ],
)
def test_scalars_of_numpy_and_torch_are_the_numbers_they_are(field: str, given: Any, value: Any) -> None:
    for config in (TrainerConfig(**{field: given}), with_overrides(TrainerConfig(), {field: given})):
        found = getattr(config, field)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    "wrong", [numpy.float64(3), numpy.array([3]), numpy.bool_(True), torch.ones(1), numpy.int64(0)]
)
def test_other_numbers_are_refused_as_ever(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^max_step must be "):
        TrainerConfig(max_step=wrong)
