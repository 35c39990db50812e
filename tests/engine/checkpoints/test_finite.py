from __future__ import annotations

import math

import pytest
import torch

from darkit.engine.checkpoints.finite import is_finite

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2, torch.complex64]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 50, 99])
def test_one_element_is_seen_wherever_it_is(dtype: torch.dtype, value: float, place: int) -> None:
    values = torch.linspace(-1, 1, 100).to(dtype)
    assert is_finite(values)
    values[place] = complex(0, value) if dtype.is_complex else value
    assert not is_finite(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_largest_numbers_are_finite_however_many_they_are(dtype: torch.dtype) -> None:
    assert is_finite(torch.full((1000,), torch.finfo(dtype).max, dtype=dtype))


def test_what_has_no_extremes_is_finite() -> None:
    assert is_finite(torch.empty(0, 3))
    assert is_finite(torch.tensor([1, 2]))
    assert is_finite(torch.tensor([True]))


def test_sparse_and_strided_tensors_are_checked_too() -> None:
    spoiled = torch.zeros(4, 4)
    spoiled[2, 1] = math.inf
    assert not is_finite(spoiled.to_sparse())
    assert not is_finite(spoiled.t()[1:, :])
    assert is_finite(spoiled.t()[:1, :])
