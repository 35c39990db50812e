"""Means, intervals and tests against scipy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import special, stats

from darkit.runs.statistics import (
    RESAMPLES,
    compare_groups,
    compare_pairs,
    holm,
    holm_interval,
    summarize,
    t_chance,
    t_critical,
)

EXACT = 1e-9


def drawn(count: int, seed: int, shift: float = 0.0) -> list[float]:
    generator = random.Random(seed)
    return [3 + shift + generator.gauss(0, 0.1) for _ in range(count)]


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 3.7, 4, 9, 31.25, 200, 1998.5])
def test_the_distribution_of_t_is_scipys(freedom: float) -> None:
    for statistic in (0.0, 1e-6, 0.3, -1.0, 2.5, 7.0, 40.0, 1e4):
        assert t_chance(statistic, freedom) == pytest.approx(2 * stats.t.sf(abs(statistic), freedom), rel=EXACT)
    for chance in (0.5, 0.1, 0.05, 0.01, 1e-6):
        assert t_critical(chance, freedom) == pytest.approx(stats.t.isf(chance / 2, freedom), rel=EXACT)
    assert t_chance(math.inf, freedom) == 0


@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_mean_deviation_and_intervals_are_scipys(count: int, confidence: float) -> None:
    values = drawn(count, seed=count)
    found = summarize(values, confidence)
    assert (found.count, found.mean) == (count, pytest.approx(np.mean(values), rel=EXACT))
    assert found.deviation == pytest.approx(np.std(values, ddof=1), rel=EXACT)
    interval = stats.t.interval(confidence, count - 1, np.mean(values), stats.sem(values))
    assert found.interval == pytest.approx(interval, rel=EXACT)
    assert found.bootstrap == pytest.approx(bootstrap((values,), np.mean, confidence), rel=EXACT)


def bootstrap(samples: tuple[list[float], ...], statistic: object, confidence: float) -> tuple[float, float]:
    found = stats.bootstrap(
        samples,
        statistic,
        confidence_level=confidence,
        method="percentile",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def test_one_value_has_no_spread() -> None:
    assert summarize([0.25]).__dict__ == {
        "count": 1,
        "mean": 0.25,
        "deviation": None,
        "interval": None,
        "bootstrap": None,
    }


@pytest.mark.parametrize("count", [2, 5, 17])
def test_pairs_are_compared_as_by_scipy(count: int) -> None:
    first, second = drawn(count, 1), drawn(count, 2, shift=0.05)
    found, wanted = compare_pairs(first, second, 0.9), stats.ttest_rel(second, first)
    assert found is not None
    assert found.paired
    assert found.counts == (count, count)
    assert (found.statistic, found.p, found.freedom) == pytest.approx((wanted.statistic, wanted.pvalue, wanted.df))
    assert found.p == pytest.approx(wanted.pvalue, rel=EXACT)
    assert found.interval == pytest.approx(tuple(wanted.confidence_interval(0.9)), rel=EXACT)
    changes = [after - before for before, after in zip(first, second, strict=True)]
    assert found.difference == pytest.approx(np.mean(changes), rel=EXACT)
    assert found.effect == pytest.approx(wanted.statistic / math.sqrt(count), rel=EXACT)
    assert found.bootstrap == pytest.approx(bootstrap((changes,), np.mean, 0.9), rel=EXACT)


@pytest.mark.parametrize(("one", "other"), [(2, 2), (5, 5), (3, 8), (40, 11)])
def test_groups_are_compared_as_by_scipy(one: int, other: int) -> None:
    first, second = drawn(one, 3), [value * 1.3 for value in drawn(other, 4)]
    found, wanted = compare_groups(first, second), stats.ttest_ind(second, first, equal_var=False)
    assert found is not None
    assert not found.paired
    assert found.statistic == pytest.approx(wanted.statistic, rel=EXACT)
    assert found.p == pytest.approx(wanted.pvalue, rel=EXACT)
    assert found.freedom == pytest.approx(wanted.df, rel=EXACT)
    assert found.interval == pytest.approx(tuple(wanted.confidence_interval(0.95)), rel=EXACT)
    pooled = stats.ttest_ind(second, first).statistic * math.sqrt(1 / one + 1 / other)  # Cohen's d
    half = (one + other - 2) / 2
    hedges = pooled * special.gamma(half) / (math.sqrt(half) * special.gamma(half - 0.5))
    assert found.effect == pytest.approx(hedges, rel=EXACT)
    wanted_spread = bootstrap((first, second), lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis), 0.95)
    assert found.bootstrap == pytest.approx(wanted_spread, rel=EXACT)


def test_what_has_no_spread_or_a_single_value_is_not_tested() -> None:
    assert compare_pairs([1.0], [2.0]) is None
    assert compare_pairs([1.0, 2.0], [2.0, 3.0]) is None
    assert compare_groups([1.0], [2.0, 3.0]) is None
    assert compare_groups([0.1] * 3, [0.7] * 3) is None
    assert compare_groups([0.1] * 3, [0.7, 0.8, 0.9]) is not None


@pytest.mark.parametrize("power", [-1020, -400, 400, 1020])
def test_values_whose_squares_no_float_holds_are_compared_like_others(power: int) -> None:
    unit = 2.0**power
    first, second = drawn(5, 1), drawn(6, 2, shift=2.0)
    for values in (first, second):
        one, other = summarize(values), summarize([value * unit for value in values])
        assert one.deviation is not None
        assert one.interval is not None
        assert other.mean == one.mean * unit
        assert other.deviation == pytest.approx(one.deviation * unit)
        assert other.interval == pytest.approx([end * unit for end in one.interval])
    for compare, pair in ((compare_groups, (first, second)), (compare_pairs, (first, second[:5]))):
        plain, found = compare(*pair), compare(*[[value * unit for value in values] for values in pair])
        assert plain is not None
        assert found is not None
        assert (found.p, found.freedom, found.effect) == pytest.approx((plain.p, plain.freedom, plain.effect))
        assert found.difference == pytest.approx(plain.difference * unit)
        assert found.interval == pytest.approx([end * unit for end in plain.interval])
        assert found.bootstrap == pytest.approx([end * unit for end in plain.bootstrap])


def test_an_interval_after_holm_excludes_0_exactly_where_the_adjusted_p_is_below_the_level() -> None:
    first, findings = drawn(5, 1), set()
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99):
        tests = [compare_groups(first, drawn(5, 2, shift), confidence) for shift in (0.0, 0.05, 0.1, 0.15, 0.15, 0.3)]
        found = [test for test in tests if test is not None]
        chances = [test.p for test in found]
        for place, (test, p) in enumerate(zip(found, holm(chances), strict=True)):
            low, high = holm_interval(test, chances, place, confidence)
            assert (low > 0 or high < 0) == (p < 1 - confidence)
            assert low <= test.interval[0] < test.interval[1] <= high
            findings.add(p < 1 - confidence)
        assert holm_interval(found[0], [found[0].p], 0, confidence) == found[0].interval
    assert findings == {True, False}


def test_holm_multiplies_the_smallest_chance_most_and_never_changes_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
