"""Means of repeated runs and their differences: Student's t, the bootstrap and effect sizes.

The distribution of t goes by its relation to the regularised incomplete beta function (DLMF 8.17), whose continued
fraction (DLMF 8.17.22) is evaluated by the modified method of Lentz. The tests compare every number with scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

RESAMPLES = 9999  # of a bootstrap
_ROUNDING = 1e-14  # of the values: equal differences may be rounded apart by so much
_SMALLEST, _LARGEST = 1e-70, 1e70  # the fourth powers of values between these are floats
_TINY = 1e-300  # in place of a zero denominator
_MOST_TERMS = 10_000  # of the continued fraction, which needs about the square root of the degrees of freedom
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """The values of one group.

    Attributes:
        count: The number of values.
        mean: Their mean.
        deviation: Their standard deviation (with count - 1); None of a single value.
        interval: The confidence interval of the mean by Student's t; None of a single value.
        bootstrap: Likewise by the bootstrap.
    """

    count: int
    mean: float
    deviation: float | None
    interval: Interval | None
    bootstrap: Interval | None


@dataclass(frozen=True)
class Difference:
    """The difference between the means of two groups, second less first.

    Attributes:
        paired: Whether values were compared in pairs; otherwise the groups by Welch's test.
        counts: The numbers of values.
        difference: The difference of the means.
        interval: Its confidence interval by Student's t.
        bootstrap: Its confidence interval by the bootstrap.
        statistic: The value of t.
        freedom: The degrees of freedom.
        p: The probability of a t at least as far from 0 if the means are equal.
        effect: The difference in standard deviations: Hedges' g of two groups, Cohen's d_z of pairs.
    """

    paired: bool
    counts: tuple[int, int]
    difference: float
    interval: Interval
    bootstrap: Interval
    statistic: float
    freedom: float
    p: float
    effect: float


def summarize(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Summarize at least one value."""
    unit = _unit(values)
    if unit != 1:
        one = summarize([value / unit for value in values], confidence)
        width = None if one.deviation is None else one.deviation * unit
        return Summary(one.count, one.mean * unit, width, _times(one.interval, unit), _times(one.bootstrap, unit))
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Summary(count, mean, None, None, None)
    deviation = math.sqrt(_variance(values))
    half = t_critical(1 - confidence, count - 1) * deviation / math.sqrt(count)
    spread = _bootstrap((values,), lambda means: means[0], confidence)
    return Summary(count, mean, deviation, (mean - half, mean + half), spread)


def compare_pairs(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Difference | None:
    """Compare values in pairs by the paired t-test. None for fewer than two pairs, or differences without a spread."""
    unit = _unit((*first, *second))
    if unit != 1:
        return _in_unit(compare_pairs, first, second, confidence, unit)
    changes = [later - before for before, later in zip(first, second, strict=True)]
    count = len(changes)
    largest = max(map(abs, (*first, *second)), default=0.0)
    if count < 2 or math.sqrt(_variance(changes)) <= _ROUNDING * largest:
        return None
    mean, deviation = math.fsum(changes) / count, math.sqrt(_variance(changes))
    error, freedom = deviation / math.sqrt(count), count - 1
    spread = _bootstrap((changes,), lambda means: means[0], confidence)
    return _difference(True, (count, count), mean, error, freedom, spread, mean / deviation, confidence)


def compare_groups(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Difference | None:
    """Compare two groups by Welch's test. None if one has fewer than two values, or neither has a spread.

    The effect is Hedges' g: the difference in pooled standard deviations, with the exact correction for small groups
    (Hedges 1981, "Distribution theory for Glass's estimator of effect size and related estimators").
    """
    unit = _unit((*first, *second))
    if unit != 1:
        return _in_unit(compare_groups, first, second, confidence, unit)
    one, other = len(first), len(second)
    if min(one, other) < 2:
        return None
    variances = _variance(first), _variance(second)
    squares = variances[0] / one, variances[1] / other
    if not sum(squares):
        return None
    mean = math.fsum(second) / other - math.fsum(first) / one
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / (one - 1) + squares[1] ** 2 / (other - 1))
    pooled = ((one - 1) * variances[0] + (other - 1) * variances[1]) / (one + other - 2)
    half = (one + other - 2) / 2
    correction = math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(half)
    spread = _bootstrap((first, second), lambda means: means[1] - means[0], confidence)
    effect = mean / math.sqrt(pooled) * correction
    return _difference(False, (one, other), mean, math.sqrt(sum(squares)), freedom, spread, effect, confidence)


def holm(chances: Sequence[float]) -> list[float]:
    """Adjust the probabilities of several tests by the method of Holm (1979): the chance of any false finding."""
    return [min(1.0, adjusted) for adjusted in _stepped_down(chances)]


def holm_interval(found: Difference, chances: Sequence[float], index: int, confidence: float) -> Interval:
    """Return the interval of one of several differences that contains 0 exactly where its adjusted p is no finding.

    Args:
        found: The difference.
        chances: The probabilities of all tests.
        index: Which of them is its own.
        confidence: That of the interval of a single test.
    """
    factor = _stepped_down(chances)[index] / found.p if found.p else 1.0
    if factor <= 1:
        return found.interval
    wider = t_critical((1 - confidence) / factor, found.freedom) / t_critical(1 - confidence, found.freedom)
    half = wider * (found.interval[1] - found.interval[0]) / 2
    return found.difference - half, found.difference + half


def _stepped_down(chances: Sequence[float]) -> list[float]:
    """Return probabilities multiplied after Holm, which may be above 1."""
    order = sorted(range(len(chances)), key=lambda index: chances[index])
    found, largest = [0.0] * len(chances), 0.0
    for place, index in enumerate(order):
        largest = max(largest, (len(chances) - place) * chances[index])
        found[index] = largest
    return found


def t_chance(statistic: float, freedom: float) -> float:
    """Return the probability of a t at least so far from 0 on either side."""
    square = statistic * statistic
    if math.isinf(square):
        return 0.0
    total = freedom + square
    return _incomplete_beta(freedom / 2, 0.5, freedom / total, square / total)


@lru_cache(1024)
def t_critical(chance: float, freedom: float) -> float:
    """Return the t whose `t_chance` is this probability, between 0 and 1."""
    high = 1.0
    while t_chance(high, freedom) > chance:
        high *= 2
    low = 0.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_chance(middle, freedom) > chance else (low, middle)
    return high


def _difference(
    paired: bool,
    counts: tuple[int, int],
    mean: float,
    error: float,
    freedom: float,
    spread: Interval,
    effect: float,
    confidence: float,
) -> Difference:
    half, statistic = t_critical(1 - confidence, freedom) * error, mean / error
    chance = t_chance(statistic, freedom)
    return Difference(paired, counts, mean, (mean - half, mean + half), spread, statistic, freedom, chance, effect)


def _unit(values: Sequence[float]) -> float:
    """Return a power of two as large as the values where their squares would be too large or small for a float."""
    largest = max(map(abs, values), default=0.0)
    if not largest or _SMALLEST < largest < _LARGEST:
        return 1.0
    return math.ldexp(1.0, math.frexp(largest)[1] - 1)


def _in_unit(
    compare: Callable[[Sequence[float], Sequence[float], float], Difference | None],
    first: Sequence[float],
    second: Sequence[float],
    confidence: float,
    unit: float,
) -> Difference | None:
    """Compare values as multiples of a unit."""
    one = compare([value / unit for value in first], [value / unit for value in second], confidence)
    if one is None:
        return None
    low, high = one.interval[0] * unit, one.interval[1] * unit
    ends = one.bootstrap[0] * unit, one.bootstrap[1] * unit
    return replace(one, difference=one.difference * unit, interval=(low, high), bootstrap=ends)


def _times(pair: Interval | None, unit: float) -> Interval | None:
    return None if pair is None else (pair[0] * unit, pair[1] * unit)


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    if all(value == values[0] for value in values):  # the mean of equal values may be rounded
        return 0.0
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _bootstrap(
    samples: Sequence[Sequence[float]], statistic: Callable[[list[numpy.ndarray[Any, Any]]], Any], confidence: float
) -> Interval:
    """Return the percentile interval of a statistic of the means of samples, drawn again from seed 0."""
    import numpy

    generator = numpy.random.default_rng(0)
    means = []
    for sample in samples:
        drawn = generator.integers(0, len(sample), size=(RESAMPLES, len(sample)))
        means.append(numpy.asarray(sample, dtype=float)[drawn].mean(axis=-1))
    tail = 100 * (1 - confidence) / 2
    low, high = numpy.percentile(statistic(means), [tail, 100 - tail])
    return float(low), float(high)


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta function of x, where ``rest`` is 1 - x without its rounding."""
    if not x or not rest:
        return 0.0 if not x else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function."""
    above, below = 1.0, 1 - (a + b) * x / (a + 1)
    below = 1 / (below or _TINY)
    found = below
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            below = 1 / ((1 + term * below) or _TINY)
            above = (1 + term / above) or _TINY
            found *= above * below
        if abs(above * below - 1) < 1e-15:
            break
    return found
