"""Values of steps and rows: each becomes a number in its column, or an error with its name."""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import lightning
import numpy
import pytest
import torch
from torch import Tensor

from darkit.engine.log.rows import RowStream
from darkit.engine.log.values import number_of
from darkit.errors import LogError, NonFiniteLossError
from darkit.runs.log import CsvLog
from tests.engine.parts import LossMLP, made, train, xy

NUMBERS: dict[str, tuple[Any, float]] = {
    "float32 of numpy": (numpy.float32(0.5), 0.5),
    "int64 of numpy": (numpy.int64(7), 7),
    "array without dimensions": (numpy.array(2.5), 2.5),
    "array of one": (numpy.array([3]), 3),
    "long double": (numpy.longdouble(0.25), 0.25),
    "bool of numpy": (numpy.bool_(True), 1),
    "tensor of one": (torch.tensor([[4.0]]), 4),
    "bfloat16": (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    "large whole number": (123456789, 123456789),
    "fraction": (Fraction(1, 4), 0.25),
    "decimal": (Decimal("1.5"), 1.5),
}


class Returning(LossMLP):
    """Returns one more value."""

    def __init__(self, value: Any = None, name: str = "value") -> None:
        super().__init__()
        self.given, self.name = [value], name

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        return self(*batch) | {self.name: self.given[0]}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_every_kind_are_logged_in_training_and_evaluation(name: str) -> None:
    value, expected = NUMBERS[name]
    log = train(made(Returning, value=value), xy(), xy(), max_step=1).log()
    assert float(log["value"][0]) == float(log["val_value"][0]) == expected


@pytest.mark.parametrize("name", ["float32 of numpy", "int64 of numpy", "large whole number", "tensor of one"])
def test_and_where_gradients_are_accumulated(name: str) -> None:
    value, expected = NUMBERS[name]
    log = train(made(Returning, value=value), xy(), max_step=1, gradient_accumulation_steps=2).log()
    assert log["value"][0] == expected


def test_a_count_of_hits_is_averaged_over_accumulated_batches() -> None:
    class Hits(LossMLP):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
            return self(*batch) | {"correct": (batch[0] == batch[0]).sum()}

    log = train(made(Hits), xy(), max_step=2, gradient_accumulation_steps=2).log()
    assert log["correct"].to_list() == [16, 16]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (10**400, "up to 1.8e308, but 'value' is an integer of 1329 bits"),
        (1j, "real numbers, but 'value' is complex"),
        (torch.tensor(1j), "real numbers, but 'value' is complex"),
        (numpy.complex64(1j), "real numbers, but 'value' is complex"),
    ],
)
def test_values_that_no_column_can_hold_are_refused_with_their_name(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(LogError, match=said):
        train(made(Returning, value=value), xy())
    stream = RowStream(CsvLog(tmp_path / "train_log.csv"))
    with pytest.raises(LogError, match=said):
        stream.put({"step": 1, "value": value})
    stream.close()


@pytest.mark.parametrize("value", [torch.ones(3), numpy.ones((2, 2)), torch.ones(0)])
def test_a_vector_is_not_logged_with_one_warning(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = train(made(Returning, value=value), xy())
    told = [record.message for record in caplog.records]
    assert told == [
        f"'value' of the step is not logged: it has the shape {tuple(value.shape)}, but a column holds one number."
    ]
    assert "value" not in run.log().columns


@pytest.mark.parametrize("name", ["train_loss", "val_loss", "step", "epoch", "time", "lr"])
def test_a_value_called_as_one_of_darkits_own_columns_does_not_replace_it(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = train(made(Returning, value=99.0, name=name), xy(), xy(), max_step=2, lr=0.0).log()
    plain = train(made(LossMLP), xy(), xy(), max_step=2, lr=0.0).log()
    assert log["train_loss"].to_list() == plain["train_loss"].to_list()
    assert log["val_loss"].to_list() == plain["val_loss"].to_list()
    assert 99.0 not in log[name].to_list()
    assert [record.message.startswith(f"{name!r} of the step is not logged") for record in caplog.records] == [True]


def test_nor_does_it_hide_a_loss_that_is_not_finite() -> None:
    class Broken(LossMLP):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
            return {"loss": self(*batch)["loss"] * math.nan, "train_loss": 1.0}

    class Hides(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
            outputs["train_loss"] = 1.0

    with pytest.raises(NonFiniteLossError):
        train(made(Broken), xy())
    with pytest.raises(NonFiniteLossError):
        train(made(Broken), xy(), callbacks=[Hides()])


@pytest.mark.parametrize("value", [None, "text", torch.ones(2), [1.0], numpy.array(["a"]), object()])
def test_anything_but_a_single_number_is_none(value: Any) -> None:
    assert number_of("value", value) is None


def test_a_word_of_a_warning_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        train(made(Returning, value="text"), xy())
    assert not caplog.records
