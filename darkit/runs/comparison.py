"""Groups of runs compared: the summary of each, and whether each differs from the first by more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from darkit.runs.comparison_words import WORDS, Words, percent
from darkit.runs.groups import Group
from darkit.runs.statistics import (
    Difference,
    Interval,
    Summary,
    compare_groups,
    compare_pairs,
    holm,
    holm_interval,
    summarize,
)


@dataclass(frozen=True)
class Contrast:
    """One group against the first.

    Attributes:
        label: The group.
        difference: The difference of the means, or None where it cannot be tested.
        p: The probability, adjusted by the number of tests after Holm; None where it cannot be tested.
        sentence: What it says in a sentence.
    """

    label: str
    difference: Difference | None
    p: float | None
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """Groups of runs compared by a metric.

    Attributes:
        metric: The metric.
        at: Which value of each run counts: ``best``, ``last`` or a step.
        confidence: Of the intervals, such as 0.95; a difference is noise from a probability of 1 - confidence.
        groups: The groups.
        summaries: The summary of each.
        contrasts: Each further group against the first.
    """

    metric: str
    at: str
    confidence: float
    groups: tuple[Group, ...]
    summaries: tuple[Summary, ...]
    contrasts: tuple[Contrast, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for programs."""
        groups = [
            {"group": group.label, "runs": [vars(member) for member in group.members], "left_out": group.left_out}
            | vars(summary)
            for group, summary in zip(self.groups, self.summaries, strict=True)
        ]
        contrasts = [
            {"group": one.label, "baseline": self.groups[0].label, "p_adjusted": one.p, "sentence": one.sentence}
            | (vars(one.difference) if one.difference else {})
            for one in self.contrasts
        ]
        return {
            "metric": self.metric,
            "at": self.at,
            "confidence": self.confidence,
            "groups": groups,
            "contrasts": contrasts,
        }


def compare(
    groups: Sequence[Group],
    metric: str,
    at: str,
    mode: str | None,
    confidence: float = 0.95,
    words: Words = WORDS,
) -> Comparison:
    """Compare each group with the first: in pairs of equal seeds where both have two of them, else by Welch's test.

    Args:
        groups: At least one.
        metric: What the values are of.
        at: Which value of each run counts.
        mode: ``min`` or ``max``, whichever value is better, or None.
        confidence: Of the intervals.
        words: In which the sentences are written.
    """
    summaries = [summarize([member.value for member in group.members], confidence) for group in groups]
    tests = [_test(groups[0], group, confidence) for group in groups[1:]]
    chances = [test.p for test in tests if test is not None]
    adjusted = enumerate(holm(chances))
    contrasts = []
    for group, test in zip(groups[1:], tests, strict=True):
        place, p = (0, None) if test is None else next(adjusted)
        interval = (0.0, 0.0) if test is None else holm_interval(test, chances, place, confidence)
        sentence = _sentence(groups[0], group, test, p, interval, len(chances), mode, confidence, words)
        contrasts.append(Contrast(group.label, test, p, sentence))
    return Comparison(metric, at, confidence, tuple(groups), tuple(summaries), tuple(contrasts))


def _test(first: Group, second: Group, confidence: float) -> Difference | None:
    one, other = _by_seed(first), _by_seed(second)
    common = sorted(one.keys() & other.keys())
    if len(common) > 1:
        return compare_pairs([one[seed] for seed in common], [other[seed] for seed in common], confidence)
    before, now = ([member.value for member in group.members] for group in (first, second))
    return compare_groups(before, now, confidence)


def _by_seed(group: Group) -> dict[int, float]:
    """Return the values by seed, without seeds that several runs have."""
    seeds = [member.seed for member in group.members]
    return {
        member.seed: member.value
        for member in group.members
        if member.seed is not None and seeds.count(member.seed) == 1
    }


def _sentence(
    first: Group,
    second: Group,
    test: Difference | None,
    p: float | None,
    interval: Interval,
    number: int,
    mode: str | None,
    confidence: float,
    words: Words,
) -> str:
    """Return what a test says, of a number of them; both p and the interval are adjusted by that number."""
    names = {"first": first.label, "second": second.label}
    if test is None or p is None:
        single = [group.label for group in (first, second) if len(group.members) == 1]
        if not single:
            return words["contrast_equal"].format(**names)
        both = words["contrast_both"].format(**names)
        return words["contrast_single"].format(groups=both if len(single) > 1 else single[0])
    low, high = interval
    edges = {"low": f"{low:.4g}", "high": f"{high:.4g}"}
    label = words["contrast_p_holm" if number > 1 else "contrast_p"]
    between = words["contrast_interval_holm" if number > 1 else "contrast_interval"]
    said = {
        **names,
        "difference": f"{test.difference:.4g}",
        "size": f"{abs(test.difference):.4g}",
        "least": f"{(high - low) / 2:.2g}",
        "p": f"{label} = {p:.2g}" if p >= 1e-4 else f"{label} < 0.0001",
        "test": words["contrast_paired_test" if test.paired else "contrast_welch_test"],
        "interval": between.format(percent=percent(confidence), **edges),
        "count": _count(first, second, test, words),
    }
    if p >= 1 - confidence:
        return words["contrast_noise"].format(**said)
    lower = test.difference < 0
    word = "better" if mode and lower == (mode == "min") else "worse" if mode else "lower" if lower else "higher"
    return words["contrast_found"].format(word=words[f"contrast_{word}"], **said)


def _count(first: Group, second: Group, test: Difference, words: Words) -> str:
    """Return of how many seeds, or runs, a test is."""
    if not test.paired:
        known = [[member.seed for member in group.members if member.seed is not None] for group in (first, second)]
        repeated = any(len({*seeds}) < len(seeds) for seeds in known)  # of other settings, or another machine
        two = words["contrast_two_runs" if repeated else "contrast_two_seeds"]
        return two.format(first=test.counts[0], second=test.counts[1])
    all_have = max(len(first.members), len(second.members)) == test.counts[0]
    return words["contrast_seeds" if all_have else "contrast_common_seeds"].format(count=test.counts[0])
