"""What is said of groups of runs that are compared, in English; the dashboard has the same keys in its languages."""

from __future__ import annotations

from collections.abc import Mapping

Words = Mapping[str, str]


def percent(share: float) -> str:
    """Return a share as a percentage with all its digits: 99.9% is not 100%."""
    return f"{100 * share:.10g}%"


WORDS = {
    "contrast_runs": "runs",
    "contrast_mean": "mean",
    "contrast_std": "std",
    "contrast_ci_t": "{percent} CI (t)",
    "contrast_ci_bootstrap": "{percent} CI (bootstrap)",
    "contrast_less": "less {first}",
    "contrast_difference": "difference",
    "contrast_test": "test",
    "contrast_p": "p",
    "contrast_p_holm": "p (Holm)",
    "contrast_effect": "effect",
    "contrast_paired": "paired t",
    "contrast_welch": "Welch's t",
    "contrast_paired_test": "paired t-test",
    "contrast_welch_test": "Welch's test",
    "contrast_both": "{first} and {second}",
    "contrast_single": "{groups}: one run tells nothing about noise. Train more with seeds=5.",
    "contrast_equal": (
        "{second} and {first} cannot be tested: the values, or their differences by seed, are all the same."
    ),
    "contrast_seeds": "{count} seeds",
    "contrast_common_seeds": "{count} seeds that both have",
    "contrast_two_seeds": "{first} and {second} seeds",
    "contrast_two_runs": "{first} and {second} runs",
    "contrast_interval": "{percent} interval {low} to {high}",
    "contrast_interval_holm": "{percent} interval over all tests {low} to {high}",
    "contrast_noise": (
        "The difference of {difference} between {second} and {first} is noise at {count}: {test}, {p}, {interval}. "
        "A difference below {least} cannot be told from noise here."
    ),
    "contrast_found": (
        "{second} is {word} than {first} by {size}: more than noise at {count} ({test}, {p}, {interval})."
    ),
    "contrast_better": "better",
    "contrast_worse": "worse",
    "contrast_lower": "lower",
    "contrast_higher": "higher",
    "contrast_left_out": "Left out of {group}: {name}, {why}.",
    "contrast_of_state": "it is {state}",
    "contrast_diverged": "it diverged and has no best value",
    "contrast_repeats": "it repeats {name}, with the same settings, seed and value",
    "contrast_no_value": "it has no finite {metric}",
    "contrast_no_value_at": "it has no finite {metric} at step {step}",
}
