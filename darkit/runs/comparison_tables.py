"""Compared groups of runs as tables and sentences of text, for a terminal, a page and a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

from darkit.runs.comparison import Comparison
from darkit.runs.comparison_words import WORDS, Words, percent
from darkit.runs.documents import FORMATS
from darkit.runs.groups import Group
from darkit.runs.inert import inert

Rows = list[tuple[str, ...]]


def tables(compared: Comparison, words: Words = WORDS) -> list[Rows]:
    """Return the table of the groups and, where there are several, that of their differences; the first row names."""
    return [_summaries(compared, words), *([_contrasts(compared, words)] if compared.contrasts else [])]


def sentences(compared: Comparison, words: Words = WORDS) -> list[str]:
    """Return what the differences say, and which runs are left out and why."""
    return [*(inert(one.sentence) for one in compared.contrasts), *left_out(compared.groups, words)]


def left_out(groups: Sequence[Group], words: Words = WORDS) -> list[str]:
    """Return which runs of groups are left out and why."""
    pairs = [(group.label, name, why) for group in groups for name, why in group.left_out.items()]
    said = words["contrast_left_out"]
    return [inert(said.format(group=label, name=name, why=why)) for label, name, why in pairs]


def document(compared: Comparison, kind: str, words: Words = WORDS) -> str:
    """Return the tables and sentences as ``markdown`` or ``latex``."""
    comment = "% " if kind == "latex" else ""
    parts = [FORMATS[kind](rows) for rows in tables(compared, words)]
    return "\n".join([*parts, *(comment + sentence for sentence in sentences(compared, words))])


def _summaries(compared: Comparison, words: Words) -> Rows:
    numbers = (words["contrast_runs"], words["contrast_mean"], words["contrast_std"])
    rows: Rows = [(compared.metric, *numbers, *_intervals(compared, words))]
    for group, one in zip(compared.groups, compared.summaries, strict=True):
        spread = "" if one.deviation is None else _number(one.deviation)
        cells = (str(one.count), _number(one.mean), spread, _interval(one.interval), _interval(one.bootstrap))
        rows.append((group.label, *cells))
    return rows


def _contrasts(compared: Comparison, words: Words) -> Rows:
    p = words["contrast_p_holm" if len(compared.contrasts) > 1 else "contrast_p"]
    test = (words["contrast_test"], "t", "df", p, words["contrast_effect"])
    less = words["contrast_less"].format(first=compared.groups[0].label)
    rows: Rows = [(less, words["contrast_difference"], *_intervals(compared, words), *test)]
    for one in compared.contrasts:
        found = one.difference
        if found is None:
            rows.append((one.label, *[""] * (len(rows[0]) - 1)))
            continue
        how = words["contrast_paired" if found.paired else "contrast_welch"]
        chance = math.nan if one.p is None else one.p
        effect = f"{'d_z' if found.paired else 'g'} = {found.effect:.3g}"
        numbers = (f"{found.statistic:.3g}", f"{found.freedom:.4g}", f"{chance:.2g}", effect)
        intervals = (_interval(found.interval), _interval(found.bootstrap))
        rows.append((one.label, _number(found.difference), *intervals, how, *numbers))
    return rows


def _intervals(compared: Comparison, words: Words) -> tuple[str, str]:
    """Return the titles of the columns of intervals."""
    share = percent(compared.confidence)
    return words["contrast_ci_t"].format(percent=share), words["contrast_ci_bootstrap"].format(percent=share)


def _number(value: float) -> str:
    return f"{value:.5g}"


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"[{_number(pair[0])}, {_number(pair[1])}]"
