"""A weight that has changed since the end of a step is found, whatever changed it, and nothing else is."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from darkit.engine.checkpoints.marks import WeightMarks


def model() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.BatchNorm1d(2))
    made[1].requires_grad_(False)
    return made


def replace(part: nn.Module) -> None:
    part.weight = nn.Parameter(part.weight.detach().clone())


def remove(part: nn.Module) -> None:
    del part.weight


def assign(part: nn.Module) -> None:
    part.weight.data = part.weight.data * 2


def add(part: nn.Module) -> None:
    part.weight.add_(1)


def add_to_data(part: nn.Module) -> None:
    part.weight.data.add_(1)


CHANGES: list[tuple[Callable[[nn.Module], None], int]] = [
    (change, index) for change in (replace, remove, add, assign, add_to_data) for index in (0, 1)
]


@pytest.mark.parametrize(("change", "index"), CHANGES)
def test_every_change_is_found_by_its_name_and_marked_away(change: Callable[[nn.Module], None], index: int) -> None:
    made = model()
    marks = WeightMarks(made)
    for _ in range(3):
        marks.record()
        assert marks.changed() == ""
        with torch.no_grad():
            change(made[index])
        assert marks.changed() == f"{index}.weight"
        if change is remove:
            made[index].weight = nn.Parameter(torch.zeros(1))
            assert marks.changed() == f"{index}.weight"


def test_weights_of_inference_count_no_changes_and_are_left_out() -> None:
    made = model()
    with torch.inference_mode():
        made[1].weight = nn.Parameter(torch.ones(3, 3), requires_grad=False)
    marks = WeightMarks(made)
    marks.record()
    assert marks.changed() == ""


def test_a_pass_and_gradients_change_no_weight() -> None:
    made = model()
    optimizer = torch.optim.AdamW(made.parameters())
    marks = WeightMarks(made)
    for _ in range(3):
        made(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        marks.record()
        made(torch.randn(5, 3)).sum().backward()
        optimizer.zero_grad()
        assert marks.changed() == ""
    optimizer.step()
    made(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    assert marks.changed() == "0.weight"


def test_a_table_that_limits_its_norms_is_found() -> None:
    made = nn.Embedding(4, 3, max_norm=0.1)
    marks = WeightMarks(made)
    marks.record()
    made(torch.tensor([1, 2]))
    assert marks.changed() == "weight"


def test_weights_without_an_address_are_watched_too() -> None:
    made = nn.Module()
    made.dense = nn.Parameter(torch.zeros(2))
    made.sparse = nn.Parameter(torch.eye(2).to_sparse(), requires_grad=False)
    marks = WeightMarks(made)
    marks.record()
    assert marks.changed() == ""
    with torch.no_grad():
        made.sparse.mul_(2)
    assert marks.changed() == "sparse"


def test_weights_that_come_and_go_between_the_steps_are_no_changes() -> None:
    made = model()
    marks = WeightMarks(made)
    marks.record()
    made[0].original = made[0].weight
    remove(made[0])
    marks.record()
    assert marks.changed() == ""
    with torch.no_grad():
        made[0].original.add_(1)
    assert marks.changed() == "0.original"


def test_a_frozen_weight_that_moved_does_not_keep_its_old_memory() -> None:
    made = model()
    marks = WeightMarks(made)
    marks.record()
    made[1].weight.data = torch.full((2, 4), 7.0)
    old = weakref.ref(marks._places[2].untyped_storage())
    marks.record()
    assert marks._places[2].data_ptr() == made[1].weight.data_ptr()
    assert old() is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_padded_or_permuted_weight_is_sampled_where_it_changes(layout: torch.memory_format) -> None:
    table, filters = nn.Embedding(50, 3, padding_idx=0), nn.Conv2d(8, 16, 3).to(memory_format=layout)
    for part in (table, filters):
        marks = WeightMarks(part)
        marks.record()
        part.weight.data.mul_(0.9)
        assert marks.changed() == "weight"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.complex64, torch.bool, torch.float8_e4m3fn])
def test_weights_of_any_type_and_size_are_sampled(kind: torch.dtype) -> None:
    made = nn.ParameterList(
        nn.Parameter(torch.zeros(size).to(kind), requires_grad=False) for size in ((), (0,), (300,), (20, 30))
    )
    for index in (0, 2, 3):
        marks = WeightMarks(made)
        marks.record()
        assert marks.changed() == ""
        made[index].data.copy_(torch.ones(made[index].shape).to(kind))
        assert marks.changed() == str(index)


def test_a_weight_that_only_moved_in_memory_is_no_change_and_one_that_is_not_a_number_neither() -> None:
    made = model()
    with torch.no_grad():
        made[1].weight.fill_(float("nan"))
    marks = WeightMarks(made)
    marks.record()
    made[0].weight.data = made[0].weight.data.clone()
    assert marks.changed() == ""
