"""The search space, in Hydra's sweep grammar."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from darkit.errors import ConfigError
from darkit.sweep.space import Dimension, as_records, from_records, split_space, text_of


def only(word: str) -> Dimension:
    fixed, (dimension,) = split_space([word])
    assert not fixed
    return dimension


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("lr=interval(1e-4,1e-1)", FloatDistribution(1e-4, 1e-1)),
        ("lr=interval(1e-4,1e-1,log)", FloatDistribution(1e-4, 1e-1, log=True)),
        ("lr=tag(log, interval(1e-4, 1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("n=int(interval(1,64))", IntDistribution(1, 64)),
        ("n=interval(1,64,int)", IntDistribution(1, 64)),
        ("n=interval(8.5,64.5,int)", IntDistribution(9, 64)),
        ("n=interval(0.5,64,int,log)", IntDistribution(1, 64, log=True)),
        ("n=interval(1,64,int,log)", IntDistribution(1, 64, log=True)),
        ("n=tag(log, int(interval(1, 64)))", IntDistribution(1, 64, log=True)),
        ("n=range(0,10,3)", IntDistribution(0, 9, step=3)),
        ("n=range(3)", IntDistribution(0, 2)),
        ("x=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("n=32,64", CategoricalDistribution(("32", "64"))),
        ("n=choice(32,64)", CategoricalDistribution(("32", "64"))),
        ("x='a b',[1,2],null,{a: 1}", CategoricalDistribution(("'a b'", "[1,2]", "null", "{a:1}"))),
        ("+optimizer=adam,sgd,adam", CategoricalDistribution(("adam", "sgd"))),
        ("n=range(3,4)", CategoricalDistribution(("3",))),
    ],
)
def test_a_sweep_override_becomes_optunas_distribution(word: str, expected: object) -> None:
    assert only(word).distribution() == expected
    assert only(word).key == word.partition("=")[0]


def test_other_overrides_are_shared_by_all_trials() -> None:
    words = ["a=1", "b='x,y'", "c=[1,2]", "~d", "e=1,2"]
    fixed, (dimension,) = split_space(words)
    assert fixed == words[:-1]
    assert dimension.choices == ("1", "2")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lr=interval(1e-1,1e-4)", "the first number must be the smaller one"),
        ("lr=interval(0,1,log)", "it must begin above 0"),
        ("lr=interval(1,2,lag)", "unknown tag 'lag'. Available: log, int."),
        ("lr=tag(log,choice(1,2))", "which only an interval takes"),
        ("lr=range(3,3)", "an empty range"),
        ("lr=interval(1)", "The value of lr cannot be read"),
        ("lr=glob(*)", "list the choices"),
        ("lr=interval(a,b)", "The value of lr cannot be read"),
        ("lr=range(1,5,0)", "the step must be another number"),
        ("lr=range(0,1,0.0)", "the step must be another number"),
        ("lr=interval(0,inf)", "it must be finite"),
        ("lr=interval(nan,1)", "it must be finite"),
        ("lr=range(0,1,nan)", "it must be finite"),
        ("lr=int(interval(1,10000000000000000000000))", "whole ones must be below 2**53"),
        ("lr=interval(1,1e20,int)", "whole ones must be below 2**53"),
        ("lr=interval(1e-4,1e-1,log,int)", "which has no whole number"),
        ("lr=range(1,1000000000)", "a range of more than 100000 numbers. Give a larger step, or an interval"),
        ("lr=range(0,1,1e-9)", "a range of more than 100000 numbers"),
        ("lr=shuffle(1,2,3)", "leave out shuffle(...)"),
        ("lr=shuffle(range(3))", "leave out shuffle(...)"),
    ],
)
def test_what_cannot_be_searched_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match="lr") as refused:
        split_space([word])
    assert said in str(refused.value)
    with pytest.raises(ConfigError, match="a has two search spaces"):
        split_space(["a=1,2", "a=range(3)"])


def test_values_of_a_grid_and_the_first_one() -> None:
    assert only("n=range(0,10,3)").values == (0, 3, 6, 9)
    assert only("n=int(interval(1,4))").values == (1, 2, 3, 4)
    assert only("x=range(0,1,0.25)").values == (0, 0.25, 0.5, 0.75)
    assert only("lr=interval(1.0,2.0)").values is None
    assert only("n=int(interval(1,1000000000))").size == 10**9, "without a list of them"
    assert [only(word).first for word in ("n=range(2,9,3)", "lr=interval(1e-4,1,log)", "n=a,b")] == ["2", "0.0001", "a"]
    assert float(text_of(0.1 + 0.2)) == 0.1 + 0.2


def test_dimensions_survive_json() -> None:
    space = [only(word) for word in ("n=range(0,10,3)", "lr=interval(1e-4,1e-1,log)", "x=a,b")]
    assert from_records(as_records(space)) == space
