"""Counting the samples of all kinds of batches."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from darkit.engine.data.samples import count_samples, count_targets

T = torch.zeros(3, 7)
Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Batch:
    x: Tensor
    y: Any = None


BATCHES: dict[str, tuple[Any, int | None]] = {
    "tensor": (T, 3),
    "array": (numpy.zeros((3, 7)), 3),
    "pair": ((T, torch.zeros(3)), 3),
    "pair of two": ((torch.zeros(2, 2), torch.zeros(2)), 2),
    "list of fields": ([T, torch.zeros(3)], 3),
    "named tuple": (Pair(T, torch.zeros(3)), 3),
    "nested dicts": ({"inputs": {"a": T}, "target": {"y": torch.zeros(3)}}, 3),
    "list of dicts": ([{"x": torch.zeros(5)}, {"x": torch.zeros(2)}], 2),
    "tensors of different lengths": ((torch.zeros(2), [torch.zeros(5, 4), torch.zeros(2, 4)]), 2),
    "dataclass": (Batch(T, torch.zeros(3)), 3),
    "list of dataclasses": ([Batch(torch.zeros(5)), Batch(torch.zeros(5))], 2),
    "object": (SimpleNamespace(x=T, name="train"), 3),
    "user's dict": (UserDict(input_ids=T, labels=T), 3),
    "with a number": ((T, 1), 3),
    "with a scalar": ({"x": T, "temperature": torch.tensor(1.0)}, 3),
    "with texts": ({"text": ["a", "b", "c"], "x": T}, 3),
    "graphs": (SimpleNamespace(x=torch.zeros(9, 2), edge_index=torch.zeros(2, 30), num_graphs=4), 4),
    "graphs by pointers": (SimpleNamespace(x=torch.zeros(9, 2), ptr=torch.tensor([0, 3, 9])), 2),
    "graphs by owners": (
        {"x": torch.zeros(9, 2), "edge_index": torch.zeros(2, 30), "batch": torch.tensor([0] * 5 + [1] * 4)},
        2,
    ),
    "packed": (pack_sequence([torch.zeros(5), torch.zeros(2)]), 2),
    "sparse": (torch.eye(3).to_sparse(), 3),
    "no agreement": ((torch.zeros(3), torch.zeros(100)), None),
    "scalar": (torch.tensor(1.0), None),
    "nothing": (None, None),
    "text": ("text", None),
    "number": (5, None),
}


@pytest.mark.parametrize("name", BATCHES)
def test_samples_are_counted(name: str) -> None:
    batch, expected = BATCHES[name]
    assert count_samples(batch) == expected


class SomeForCausalLM(nn.Module):
    pass


def test_targets_are_the_labels_that_are_not_ignored() -> None:
    labels = torch.tensor([[5, -100, 3], [-100, 2, -100]])
    assert int(count_targets({"labels": labels}, nn.Module())) == 3  # type: ignore[arg-type]
    assert int(count_targets({"labels": labels}, SomeForCausalLM())) == 2  # type: ignore[arg-type]
    assert int(count_targets((labels, labels), SomeForCausalLM())) == 3  # type: ignore[arg-type]
    for batch in ({"labels": torch.zeros(3)}, (T, torch.zeros(3, dtype=torch.long)), {"x": T}, T, None):
        assert count_targets(batch, nn.Module()) is None
