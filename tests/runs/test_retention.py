"""Which checkpoints are kept: the last, the best, and always the highest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.errors import ConfigError, StorageError
from darkit.runs.checkpoints import Checkpoint, checkpoint_path, manifest_path
from darkit.runs.retention import Retention, remove_files
from tests.runs.parts import names_in


def checkpoint(step: int, metrics: dict[str, float] | None = None, problem: str = "") -> Checkpoint:
    return Checkpoint(step, checkpoint_path(Path(), step), 1, "ab", metrics or {}, problem)


def scored(*values: float) -> list[Checkpoint]:
    return [checkpoint(step, {"val_loss": value}) for step, value in enumerate(values, 1)]


def gone(retention: Retention, checkpoints: list[Checkpoint]) -> list[int]:
    return [checkpoint.step for checkpoint in retention.superseded(checkpoints)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"last": 1}, [1, 2, 3, 4, 5]),
        ({"last": 2}, [1, 2, 3, 4]),
        ({"last": 6}, []),
        ({"last": 99}, []),
        ({"best": 1}, [1, 2, 4, 5]),
        ({"best": 2}, [1, 2, 4]),
        ({"best": 1, "mode": "max"}, [1, 3, 4, 5]),
        ({"last": 2, "best": 1}, [1, 2, 4]),
        ({"best": 1, "monitor": "other"}, []),
        ({"last": 2, "best": 1, "monitor": "other"}, []),
    ],
    ids=str,
)
def test_the_last_the_best_and_always_the_highest_are_kept(settings: dict[str, Any], expected: list[int]) -> None:
    assert gone(Retention(**settings), scored(0.5, 0.9, 0.1, 0.4, 0.3, 0.8)) == expected


def test_steps_between_the_multiples_take_no_ones_place() -> None:
    steps = [checkpoint(step) for step in (10, 20, 22, 24)]
    assert gone(Retention(last=2, every=10), steps) == [22]
    assert gone(Retention(last=1, every=10), steps) == [10, 22]
    assert gone(Retention(last=2, every=10), [checkpoint(3), checkpoint(7)]) == [3]
    assert gone(Retention(last=2, every=10), [*steps, checkpoint(30)]) == [10, 22, 24]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_metric_that_is_not_finite_is_never_the_best(bad: float, mode: str) -> None:
    assert gone(Retention(best=1, mode=mode), [*scored(bad, 0.5, bad), checkpoint(4)]) == [1, 3]


def test_without_a_score_one_is_kept_until_the_last_ones_are_counted_and_another_has_a_score() -> None:
    without = [checkpoint(step) for step in (1, 2, 3)]
    assert gone(Retention(best=1), [*without, *scored()]) == []
    last = [checkpoint(4, {"val_loss": 0.5}), checkpoint(5, {"val_loss": 0.7}), checkpoint(6)]
    assert gone(Retention(best=1), [*without, *last]) == [5]
    assert gone(Retention(last=1, best=1), without) == []
    assert gone(Retention(last=1, best=1), [*without, *last]) == [1, 2, 3, 5]


def test_of_equal_ones_the_earlier_is_the_best() -> None:
    assert gone(Retention(best=1), scored(0.5, 0.5, 0.5)) == [2]


def test_a_damaged_one_takes_no_ones_place() -> None:
    one, two, three = scored(0.5, 0.1, 0.9)
    damaged = checkpoint(2, two.metrics, "it has 3 bytes where its manifest says 4")
    assert gone(Retention(last=2), [one, damaged, three]) == [2]
    assert gone(Retention(best=1), [one, damaged, three]) == [2]


@given(
    values=st.lists(st.none() | st.floats(), min_size=1, max_size=12),
    last=st.none() | st.integers(1, 5),
    best=st.integers(0, 5),
    mode=st.sampled_from(["min", "max"]),
    data=st.data(),
)
def test_whatever_is_monitored_the_rules_hold(
    values: list[float | None], last: int | None, best: int, mode: str, data: Any
) -> None:
    checkpoints = [checkpoint(step, {} if value is None else {"m": value}) for step, value in enumerate(values)]
    order = data.draw(st.permutations(checkpoints))
    lost = gone(Retention(last, best, "m", mode), order)
    kept = [step for step in range(len(values)) if step not in lost]
    assert lost == sorted(lost)
    assert len(values) - 1 in kept
    if last is None and not best:
        assert lost == []
        return
    assert set(range(len(values))[-(last or 1) :]) <= set(kept)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not best or (last is not None and finite):
        assert len(kept) <= (last or 1) + best
    else:
        assert {step for step, value in enumerate(values) if value is None} <= set(kept)
    if best and finite:
        top = min(finite) if mode == "min" else max(finite)
        assert any(values[step] == top for step in kept)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"last": 0}, "keep_last must be at least 1, or None for all, not 0"),
        ({"best": -1}, "keep_best must be at least 0, not -1"),
        ({"mode": "least"}, "mode must be one of min, max, not 'least'"),
    ],
)
def test_a_value_out_of_its_range_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Retention(**settings)


def test_a_checkpoint_is_removed_with_its_manifest_if_it_has_one(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint_path(tmp_path, step).write_bytes(b"x")
    manifest_path(checkpoint_path(tmp_path, 1)).write_bytes(b"{}")
    for step in (1, 2, 3):
        remove_files(checkpoint_path(tmp_path, step))
    assert names_in(tmp_path) == []


def test_what_cannot_be_removed_is_a_storage_error_and_the_checkpoint_stays(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 1)
    path.write_bytes(b"x")
    manifest_path(path).mkdir()
    with pytest.raises(StorageError, match=r"Cannot delete .*iter-1-ckpt\.json"):
        remove_files(path)
    assert path.exists()
