"""Brackets and rungs of halving and hyperband."""

from __future__ import annotations

import math

import pytest

from darkit.errors import ConfigError
from darkit.sweep.rungs import make_plan, promote, rungs_of
from darkit.sweep.settings import SweepSettings


def settings(pruner: str, factor: int = 3, min_step: int | None = None) -> SweepSettings:
    return SweepSettings(pruner=pruner, factor=factor, min_step=min_step)


def test_without_halving_all_trials_train_to_their_end() -> None:
    for pruner in ("none", "median"):
        (bracket,) = make_plan(settings(pruner), 5, 1000, 100)
        assert (bracket.numbers, bracket.rungs) == (range(5), (None,))


def test_rungs_are_at_powers_of_the_factor_where_the_objective_has_a_value() -> None:
    assert rungs_of(settings("halving"), 2700, 100) == [100, 300, 900, 2700]
    assert rungs_of(settings("halving", min_step=300), 2700, 1) == [300, 900, 2700]
    assert rungs_of(settings("halving", factor=2), 1000, 100) == [200, 300, 500, 1000]
    assert rungs_of(settings("halving"), 1000, 250) == [500, 1000]


def test_halving_has_no_more_rungs_than_it_has_trials_to_compare() -> None:
    (bracket,) = make_plan(settings("halving"), 9, 2700, 1)
    assert bracket.rungs == (300, 900, 2700)
    (bracket,) = make_plan(settings("halving"), 27, 2700, 1)
    assert bracket.rungs == (100, 300, 900, 2700)
    (bracket,) = make_plan(settings("halving"), 2, 2700, 1)
    assert bracket.rungs == (2700,)


def test_hyperband_spends_about_as_many_steps_on_each_bracket() -> None:
    plan = make_plan(settings("hyperband"), 50, 2700, 1)
    assert [bracket.rungs[0] for bracket in plan] == [100, 300, 900, 2700]
    assert [number for bracket in plan for number in bracket.numbers] == list(range(50))
    spent = []
    for bracket in plan:
        size, before, steps = len(bracket.numbers), 0, 0
        for rung in bracket.rungs:
            assert rung is not None
            steps += size * (rung - before)
            before, size = rung, max(1, size // 3)
        spent.append(steps)
    assert max(spent) < 3 * min(spent)


def test_the_best_of_every_factor_go_on_and_what_diverged_never() -> None:
    values = {0: 3.0, 1: 1.0, 2: math.nan, 3: 1.0, 4: 2.0, 5: 9.0}
    assert promote(values, 3, "min") == ([1, 3], [0, 2, 4, 5])
    assert promote(values, 3, "max") == ([0, 5], [1, 2, 3, 4])
    assert promote({7: 5.0, 8: 4.0}, 3, "min") == ([8], [7])
    assert promote({7: math.nan}, 3, "min") == ([], [7])


def test_steps_without_room_for_a_rung_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a value every 100 steps of 100"):
        make_plan(settings("halving"), 9, 100, 100)
    with pytest.raises(ConfigError, match=r"sweep.factor must be at least 2, not 1"):
        settings("halving", factor=1).check()
    with pytest.raises(ConfigError, match=r"sweep.pruner must be one of none, median, hyperband, halving, not 'best'"):
        settings("best").check()
