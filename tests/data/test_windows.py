"""Windows over a row of tokens, and the unigram model to compare with."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkit.data import TokenWindows, unigram_cross_entropy
from darkit.errors import DataError


@given(st.integers(2, 200), st.integers(1, 40))
def test_every_token_but_the_first_and_a_rest_is_a_target_exactly_once(count: int, length: int) -> None:
    if count < length + 1:
        with pytest.raises(DataError):
            TokenWindows(torch.arange(count), length)
        return
    windows = TokenWindows(torch.arange(count), length)
    inputs, targets = zip(*(windows[index] for index in range(len(windows))), strict=True)
    assert all(part.shape == (length,) and part.dtype == torch.int64 for part in (*inputs, *targets))
    found = torch.cat(targets).tolist()
    assert found == list(range(1, len(found) + 1))
    assert count - 1 - len(found) < length, "the rest is shorter than a window"
    assert torch.equal(torch.cat(inputs), torch.cat(targets) - 1), "a target is the token after its input"


def test_a_window_that_is_not_there_is_an_index_error_so_that_iteration_ends() -> None:
    windows = TokenWindows(torch.arange(9), 4)
    assert len(list(windows)) == len(windows) == 2
    for index in (2, -1):
        with pytest.raises(IndexError):
            windows[index]


@pytest.mark.parametrize(
    ("count", "length", "said"),
    [
        (4, 4, "4 tokens are too few for one window of 4 tokens and its target."),
        (0, 1, "0 tokens are too few for one window of 1 tokens and its target."),
        (4, 0, "A window must have 1 token at least, not 0."),
    ],
)
def test_what_makes_no_window_is_refused(count: int, length: int, said: str) -> None:
    with pytest.raises(DataError) as refused:
        TokenWindows(torch.arange(count), length)
    assert str(refused.value) == said


def test_the_unigram_models_cross_entropy_is_what_one_computes_by_hand() -> None:
    train, val = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2], dtype=torch.int32)
    # counts 3, 1, 0 and one more each: 4/7, 2/7, 1/7
    wanted = -(math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 3
    assert unigram_cross_entropy(train, val, 3) == pytest.approx(wanted, rel=1e-12)


def test_a_unigram_model_that_saw_nothing_finds_all_tokens_alike() -> None:
    nothing = torch.tensor([], dtype=torch.int64)
    assert unigram_cross_entropy(nothing, torch.tensor([4, 2]), 8) == pytest.approx(math.log(8), rel=1e-12)
