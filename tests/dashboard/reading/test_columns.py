"""Rows kept in little memory: what comes out is what went in, whatever it is and however it was cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.dashboard.reading import columns
from darkit.dashboard.reading.columns import CHUNK, Columns

numbers = st.one_of(st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324]), st.floats())


def same(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether all bits agree, but for those of a NaN."""
    both = np.isnan(first) & np.isnan(second)
    return first.shape == second.shape and bool((both | (first.view(np.int64) == second.view(np.int64))).all())


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Columns of every kind that is packed its own way, of a length that is no multiple of a chunk's."""
    count = draw(st.integers(0, 40))
    kinds = {
        "any": lambda: draw(st.lists(numbers, min_size=count, max_size=count)),
        "even": lambda: (draw(st.floats(-1e6, 1e6)) + draw(st.floats(-10, 10)) * np.arange(count)).tolist(),
        "same": lambda: [draw(numbers)] * count,
        "seldom": lambda: [draw(numbers) if row % 7 == 3 else np.nan for row in range(count)],
    }
    width = draw(st.integers(1, 4))
    values = np.array([kinds[draw(st.sampled_from(sorted(kinds)))]() for _ in range(width)], dtype=float)
    values = values.reshape(width, count)
    said = np.array([draw(st.lists(st.booleans(), min_size=count, max_size=count)) for _ in range(width)], dtype=bool)
    return values, ~np.isfinite(values) & said.reshape(width, count)


@settings(max_examples=300, deadline=None)
@given(tables(), st.lists(st.integers(0, 40), max_size=5), st.integers(0, 45))
def test_columns_return_the_rows_that_were_added_from_any_row_on(
    table: tuple[np.ndarray, np.ndarray], cuts: list[int], first: int
) -> None:
    values, odd = table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "CHUNK", 8)
        kept = Columns(len(values))
        start = 0
        for end in [*sorted(cuts), values.shape[1]]:
            kept.append(values[:, start:end], odd[:, start:end])
            start = max(start, end)
        rows = kept.rows()
        assert rows.count == values.shape[1]
        for index in range(len(values)):
            assert same(rows.column(index), values[index])
            assert same(rows.column(index, first), values[index, first:])
            assert np.array_equal(rows.odd_of(index, first), odd[index, first:])


def test_rows_stay_as_they_were_while_more_are_added() -> None:
    kept = Columns(1)
    kept.append(np.arange(10.0)[None], np.zeros((1, 10), dtype=bool))
    before = kept.rows()
    kept.append(np.full((1, 3 * CHUNK), 7.0), np.zeros((1, 3 * CHUNK), dtype=bool))
    assert before.column(0).tolist() == list(range(10))
    assert kept.rows().count == 3 * CHUNK + 10


def test_a_step_an_epoch_and_a_seldom_measured_loss_take_next_to_nothing() -> None:
    count = 20 * CHUNK
    step = np.arange(count, dtype=float)
    seldom = np.where(step % 100 == 0, 0.5, np.nan)
    noise = np.random.default_rng(0).normal(size=count)
    kept = Columns(4)
    kept.append(np.stack([step, np.ones(count), seldom, noise]), np.zeros((4, count), dtype=bool))
    assert noise.nbytes <= kept.size < 1.1 * noise.nbytes
