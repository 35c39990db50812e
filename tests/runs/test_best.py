"""The best value of a metric: by the run's mode, else by the name, and never one that is not finite."""

from __future__ import annotations

import math

import pytest

from darkit.runs.best import best_mode, best_value, is_better


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("train_loss", "min"), ("perplexity", "min"), ("val_error", "min"), ("score_loss", "min"), ("mapped", "min")),
        *(("val_acc", "max"), ("accuracy", "max"), ("val/top5-accuracy", "max"), ("valAccuracy", "max")),
        *(("F1", "max"), ("val_acc1", "max"), ("r2", "max"), ("mAP@50", "max"), ("BLEU-4", "max"), ("roc auc", "max")),
    ],
)
def test_the_name_says_the_mode_unless_the_run_monitors_the_metric(name: str, mode: str) -> None:
    assert best_mode({}, name) == mode
    assert best_mode({"monitor": "other", "mode": "max"}, name) == mode
    assert best_mode({"monitor": name, "mode": "none"}, name) == mode
    for own in ("min", "max"):
        assert best_mode({"monitor": name, "mode": own}, name) == own
        assert best_mode({"monitor": name, "mode": own}, "a series", name) == own


def test_the_column_of_a_series_with_another_name_says_the_mode() -> None:
    assert best_mode({}, "validation", "val_accuracy") == "max"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_value_that_is_not_finite_is_never_the_best(bad: float, mode: str) -> None:
    assert best_value([bad, 0.25, None, bad], mode) == 0.25
    assert best_value([bad], mode) is None
    assert not is_better(bad, None, mode)
    assert not is_better(bad, 1.0, mode)
    assert is_better(0.5, None, mode)


def test_the_best_is_the_largest_or_the_smallest() -> None:
    assert best_value([0.1, 0.9, 0.5], "max") == 0.9
    assert best_value([0.1, 0.9, 0.5], "min") == 0.1
    assert [is_better(value, 0.5, "max") for value in (0.4, 0.5, 0.6)] == [False, False, True]
    assert [is_better(value, 0.5, "min") for value in (0.4, 0.5, 0.6)] == [True, False, False]
