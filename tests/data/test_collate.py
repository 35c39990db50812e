"""Rows of different lengths in one batch: what they are filled with, to which length, and what tells it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from darkit.data.collate import Pad
from darkit.errors import DataError


def row(*values: int) -> Tensor:
    return torch.tensor(values)


def dicts() -> list[dict[str, Any]]:
    return [
        {"input_ids": row(5, 6, 7), "token_type_ids": row(1, 1, 1), "labels": row(1, 2, 3), "extra": torch.tensor(1.5)},
        {"input_ids": row(8), "token_type_ids": row(1), "labels": row(4), "extra": torch.tensor(2.5)},
    ]


def test_each_name_is_filled_with_what_it_means_and_a_mask_tells_the_filling() -> None:
    batch = Pad(9)(dicts())
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert batch["extra"].tolist() == [1.5, 2.5]


def test_a_mask_of_ones_own_is_kept() -> None:
    samples = [{"input_ids": row(1, 2), "attention_mask": row(0, 1)}, {"input_ids": row(1), "attention_mask": row(1)}]
    assert Pad()(samples)["attention_mask"].tolist() == [[0, 1], [1, 0]]


def test_of_a_tuple_the_first_is_what_the_model_sees() -> None:
    inputs, targets = Pad(7)([(row(1, 2), row(2, 3)), (row(4), row(5))])
    assert (inputs.tolist(), targets.tolist()) == ([[1, 2], [4, 7]], [[2, 3], [5, -100]])
    tokens, label = Pad(7)([(row(1, 2), 0), (row(4), 1)])
    assert (tokens.tolist(), label.tolist()) == ([[1, 2], [4, 7]], [0, 1])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.sampled_from([None, 40, 45]))
def test_the_length_is_the_least_that_was_asked_for(lengths: list[int], multiple: int, fixed: int | None) -> None:
    batch = Pad(length=fixed, multiple_of=multiple, most=45)([torch.ones(length) for length in lengths])
    wanted = fixed or max(lengths)
    assert batch.shape[0] == len(lengths)
    assert wanted <= batch.shape[1] < wanted + multiple
    assert batch.shape[1] % multiple == 0 or batch.shape[1] == max(45, wanted)
    assert batch.sum(1).tolist() == lengths


def test_a_sample_that_is_too_long_for_a_fixed_length_is_refused() -> None:
    with pytest.raises(DataError, match=r"^A sample has 3 tokens, more than the fixed length 2 of a batch\.$"):
        Pad(length=2)([row(1, 2, 3)])


@pytest.mark.parametrize("name", ["length", "multiple_of"])
def test_lengths_start_at_1(name: str) -> None:
    with pytest.raises(DataError, match=f"^{name} must be at least 1, not 0"):
        Pad(**{name: 0})


def test_it_goes_to_worker_processes_of_any_kind() -> None:
    assert pickle.loads(pickle.dumps(Pad(3)))(dicts())["input_ids"][1].tolist() == [8, 3, 3]
