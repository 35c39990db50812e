from __future__ import annotations

import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine.checkpoints import finite
from darkit.engine.checkpoints.finite import is_finite
from darkit.engine.checkpoints.writer import CheckpointWriter

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


def test_the_first_weight_that_is_not_finite_is_found_in_any_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "_PIECE", 10)
    weights = {
        "small": torch.ones(3),
        "large": torch.ones(7, 5),
        "turned": torch.ones(5, 7).t(),
        "sparse": torch.eye(4).to_sparse(),
        "empty": torch.ones(0),
        "number": torch.ones(()),
    }
    assert finite.not_finite(weights, weights) == ""
    for name, one in weights.items():
        if one.numel():
            spoiled = weights | {name: one * float("nan"), "number": torch.full((), float("inf"))}
            assert finite.not_finite(weights, spoiled) == name
    last = torch.ones(35)
    last[-1] = -float("inf")
    assert finite.not_finite(weights, weights | {"large": last.view(7, 5)}) == "large"


@pytest.mark.skipif(sys.platform != "linux", reason="only there threads have priorities")
def test_the_copy_of_a_save_is_looked_at_in_pieces_of_low_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def looking(values: torch.Tensor) -> bool:
        seen.append((values.numel(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        return is_finite(values)

    monkeypatch.setattr(finite, "is_finite", looking)
    content = {"state_dict": {"weight": torch.ones(2**21 + 5), "bias": torch.ones(3)}}
    checked = threading.Event()

    def check(copied: Any) -> None:
        assert finite.not_finite(copied["state_dict"], copied["state_dict"]) == ""
        checked.set()

    writer = CheckpointWriter(tmp_path)
    writer.save(1, content, {}, check)
    assert checked.wait(60)  # without `CheckpointWriter.wait`, for which the work would hurry
    writer.close()
    assert seen == [(2**20, 19), (2**20, 19), (5, 19), (3, 19)]
