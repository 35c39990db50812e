"""Rows that the logger accepts, and what it logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
import pytest
import torch

from darkit.core.logger import CsvLogger, LogFieldnames
from darkit.errors import LogError


@dataclass
class Row:
    step: int
    loss: Any = None


class Mixed(LogFieldnames):
    pass


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def log(rows: list[dict[str, Any]]) -> CsvLogger:
    return CsvLogger(rows.append)


def test_a_row_is_a_dataclass_a_mapping_or_keywords_or_both(log: CsvLogger, rows: list[dict[str, Any]]) -> None:
    log.log(Row(1, 0.5))
    log.log({"step": 2})
    log.log(step=3)
    log.log(Row(4), loss=0.25)
    log.log(Mixed(step=5))
    assert rows[:4] == [{"step": 1, "loss": 0.5}, {"step": 2}, {"step": 3}, {"step": 4, "loss": 0.25}]
    assert list(rows[4]) == ["step", "epoch", "time", "lr", "train_loss", "val_loss"]
    assert (rows[4]["step"], rows[4]["train_loss"]) == (5, None)


@pytest.mark.parametrize("wrong", [Row, 3, "step", [1], object()])
def test_anything_else_is_refused(log: CsvLogger, rows: list[dict[str, Any]], wrong: Any) -> None:
    with pytest.raises(LogError, match="must be a dataclass instance, a mapping or keyword arguments"):
        log.log(wrong)
    assert rows == []


@pytest.mark.parametrize(
    "value",
    [torch.tensor(0.5), torch.tensor([[0.5]], requires_grad=True), numpy.float32(0.5), numpy.array([0.5]), 0.5],
)
def test_one_element_counts_as_a_number(log: CsvLogger, rows: list[dict[str, Any]], value: Any) -> None:
    log.log(loss=value)
    found = rows[0]["loss"]
    assert getattr(found, "item", lambda: found)() == 0.5
    assert not getattr(found, "requires_grad", False)


@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(0), numpy.ones((3, 1))])
def test_more_or_less_than_one_element_is_refused_with_its_shape(
    log: CsvLogger, rows: list[dict[str, Any]], value: Any
) -> None:
    with pytest.raises(LogError, match=r"loss must be a single number, but its shape is \("):
        log.log(loss=value)
    assert rows == []


@pytest.mark.parametrize("value", [torch.tensor(1.0), numpy.array([1.0])])
def test_what_a_loop_changes_in_place_later_keeps_the_value_it_was_logged_with(
    log: CsvLogger, rows: list[dict[str, Any]], value: Any
) -> None:
    log.log(loss=value)
    value += 1
    found = rows[0]["loss"]
    assert getattr(found, "item", lambda: found)() == 1.0


def test_the_row_that_was_given_is_left_alone(log: CsvLogger) -> None:
    given = {"step": 1, "loss": torch.tensor(2.0)}
    log.log(given, more=3)
    assert given == {"step": 1, "loss": torch.tensor(2.0)}
