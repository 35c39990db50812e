"""Groups compared, and what is said of a difference."""

from __future__ import annotations

import re

from scipy import stats

from darkit.runs.comparison import compare
from darkit.runs.comparison_words import percent
from darkit.runs.groups import Group, Member


def group(label: str, values: list[float], seeds: list[int | None] | None = None) -> Group:
    known = range(len(values)) if seeds is None else seeds
    return Group(
        label, tuple(Member(f"{label}-{n}", s, v) for n, (v, s) in enumerate(zip(values, known, strict=True))), {}
    )


FIRST = [1.0, 1.1, 1.2, 1.3, 1.4]


def test_equal_seeds_are_compared_in_pairs_and_a_small_steady_gain_is_more_than_noise() -> None:
    better = [0.97, 1.08, 1.17, 1.28, 1.36]
    (contrast,) = compare([group("a", FIRST), group("b", better)], "val_loss", "best", "min").contrasts
    assert contrast.difference is not None
    assert contrast.difference.paired
    assert contrast.p == contrast.difference.p
    assert contrast.sentence == (
        "b is better than a by 0.028: more than noise at 5 seeds (paired t-test, p = 0.0017, 95% interval -0.03839 to "
        "-0.01761)."
    )
    (contrast,) = compare([group("a", FIRST), group("b", better)], "accuracy", "best", "max").contrasts
    assert contrast.sentence.startswith("b is worse than a by 0.028: more than noise")
    (contrast,) = compare([group("a", FIRST), group("b", better)], "lr", "last", None).contrasts
    assert contrast.sentence.startswith("b is lower than a by 0.028: more than noise")


def test_other_seeds_are_compared_by_welchs_test_and_the_same_gain_is_noise() -> None:
    other = group("b", [0.97, 1.08, 1.17, 1.28], [10, 11, 12, None])
    (contrast,) = compare([group("a", FIRST), other], "val_loss", "best", "min").contrasts
    assert contrast.difference is not None
    assert not contrast.difference.paired
    low, high = stats.ttest_ind([0.97, 1.08, 1.17, 1.28], FIRST, equal_var=False).confidence_interval(0.95)
    assert contrast.sentence == (
        f"The difference of -0.075 between b and a is noise at 5 and 4 seeds: Welch's test, p = 0.46, 95% interval "
        f"{low:.4g} to {high:.4g}. A difference below {(high - low) / 2:.2g} cannot be told from noise here."
    )


def test_pairs_are_made_of_the_seeds_that_both_have() -> None:
    first = group("a", FIRST)
    second = group("b", [1.15, 1.05, 7.0, 8.0], [1, 0, 30, 30])
    (contrast,) = compare([first, second], "val_loss", "best", "min").contrasts
    assert contrast.difference is None  # 0.05 both times, but for their rounding
    second = group("b", [1.18, 1.05, 7.0, 8.0], [1, 0, 30, 30])
    (contrast,) = compare([first, second], "val_loss", "best", "min").contrasts
    assert contrast.difference is not None
    assert contrast.difference.counts == (2, 2)
    assert "at 2 seeds that both have" in contrast.sentence


def test_single_runs_and_values_without_a_spread_are_not_tested() -> None:
    (contrast,) = compare([group("a", [1.0]), group("b", FIRST)], "val_loss", "best", "min").contrasts
    assert contrast.difference is contrast.p is None
    assert contrast.sentence == "a: one run tells nothing about noise. Train more with seeds=5."
    (contrast,) = compare([group("a", [1.0] * 3), group("b", [2.0] * 3)], "val_loss", "best", "min").contrasts
    assert contrast.sentence.startswith("b and a cannot be tested")


def test_several_tests_are_adjusted_and_the_numbers_are_there_for_programs() -> None:
    groups = [group("a", FIRST), group("b", [0.97, 1.08, 1.17, 1.28, 1.36]), group("c", [1.0, 1.2, 1.1, 1.3, 1.4])]
    compared = compare(groups, "val_loss", "best", "min", 0.9)
    first, second = compared.contrasts
    assert first.difference is not None
    assert second.difference is not None
    assert first.p == 2 * first.difference.p
    assert second.p == second.difference.p
    found = compared.as_json()
    assert (found["metric"], found["confidence"]) == ("val_loss", 0.9)
    assert found["groups"][0]["runs"][1] == {"name": "a-1", "seed": 1, "value": 1.1}
    assert found["groups"][2]["mean"] == 1.2
    assert found["contrasts"][0]["p_adjusted"] == first.p
    assert found["contrasts"][0]["p"] == first.difference.p


def test_the_sentence_of_several_tests_does_not_contradict_itself() -> None:
    shifted = [value + change for value, change in zip(FIRST, (0.01, 0.09, 0.02, 0.08, 0.06), strict=True)]
    groups = [group("a", FIRST), *(group(label, shifted) for label in "bcd")]
    for contrast in compare(groups, "val_loss", "best", "min").contrasts:
        assert contrast.difference is not None
        assert contrast.difference.p < 0.05 < (contrast.p or 0)
        found = re.search(
            r"p \(Holm\) = \S+, 95% interval over all tests (\S+) to (\S+)\. A difference below (\S+) ",
            contrast.sentence,
        )
        assert found is not None, contrast.sentence
        low, high, least = map(float, found.groups())
        assert low < 0 < high
        assert contrast.difference.difference < least


def test_runs_of_one_seed_with_other_values_are_not_called_seeds() -> None:
    (contrast,) = compare([group("a", FIRST), group("b", [1.0, 2.0], [7, 7])], "val_loss", "best", "min").contrasts
    assert "at 5 and 2 runs: Welch's test" in contrast.sentence


def test_a_percentage_keeps_its_digits() -> None:
    assert [percent(share) for share in (0.5, 0.57, 0.95, 0.995)] == ["50%", "57%", "95%", "99.5%"]
