"""Targets of records: labels or numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from darkit.data.sources.source import Record
from darkit.data.sources.splits import TRAIN, VAL, Split
from darkit.errors import DataError

TASKS = ("classification", "regression")


@dataclass(frozen=True)
class Targets:
    """The targets of the training and the validation part.

    Attributes:
        train: Label numbers (records), or numbers to predict (records, fields).
        val: The same for validation.
        names: The labels in the order of their numbers; empty in a regression.
        loss: The loss of outputs and targets, with a metric.
    """

    train: Tensor
    val: Tensor
    names: tuple[str, ...]
    loss: Callable[[Tensor, Tensor], Any]

    @property
    def size(self) -> int:
        """Number of model outputs for a record."""
        return len(self.names) or self.train.shape[1]

    @property
    def facts(self) -> dict[str, Any]:
        """The labels for ``run.json``, which name the predictions."""
        return {"label_names": list(self.names)} if self.names else {}

    @property
    def baselines(self) -> dict[str, float]:
        """The validation loss of predicting the label frequencies, or the mean, of the training part."""
        if not len(self.val):
            return {}
        if not self.names:
            return {"always the mean": F.mse_loss(self.train.mean(0).expand_as(self.val), self.val).item()}
        counts = torch.bincount(self.train, minlength=len(self.names)).float() + 1  # Laplace's smoothing
        logits = (counts / counts.sum()).log().expand(len(self.val), -1)
        return {"label frequencies": F.cross_entropy(logits, self.val).item()}


class TargetReader:
    """Collect the targets of records in their order.

    Args:
        fields: The field with the label, or those with numbers.
        task: ``classification`` or ``regression``.

    Raises:
        DataError: The task is unknown, or a classification has several fields.
    """

    def __init__(self, fields: Sequence[str], task: str) -> None:
        if task not in TASKS:
            raise DataError(f"task must be one of {', '.join(TASKS)}, not {task!r}.")
        if task == "classification" and len(fields) != 1:
            raise DataError(f"A classification has one field with the label, not {len(fields)}.")
        self._fields = fields
        self._labelled = task == "classification"
        self._labels: list[str] = []
        self._numbers = array("d")

    def add(self, record: Record) -> None:
        """Take the target of the next record. Raises `DataError` if it is missing or not a number."""
        if self._labelled:
            self._labels.append(label_of(record, self._fields[0]))
        else:
            self._numbers.extend(number_of(record, field) for field in self._fields)

    def targets(self, split: Split) -> Targets:
        """Return the targets of both parts. Raises `DataError` if there is only one label."""
        if not self._labelled:
            train, val = split_numbers(self._numbers, len(self._fields), split)
            return Targets(train, val, (), regression_loss)
        placed = list(zip(self._labels, split.parts, strict=True))
        found = [[label for label, part in placed if part == wanted] for wanted in (TRAIN, VAL)]
        names = sorted({*found[0], *found[1]}, key=_order)
        if len(names) < 2:
            raise DataError(
                f"A classification needs two different labels in {self._fields[0]!r} at least, but has only {names[0]}."
            )
        numbers = {name: number for number, name in enumerate(names)}
        train, val = (torch.tensor([numbers[name] for name in labels], dtype=torch.int64) for labels in found)
        return Targets(train, val, tuple(names), classification_loss)


def split_numbers(values: array[float], width: int, split: Split) -> tuple[Tensor, Tensor]:
    """Return the rows (rows, width) of both parts, as float32, of values one row after the other."""
    rows = torch.tensor(numpy.asarray(values).reshape(-1, width), dtype=torch.float32)
    train, val = (rows[torch.from_numpy(split.parts == part)] for part in (TRAIN, VAL))
    return train, val


def classification_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the mean cross-entropy in nats as ``loss``, and the ``accuracy``, of logits (B, O) and labels (B)."""
    return {"loss": F.cross_entropy(logits, labels), "accuracy": (logits.argmax(-1) == labels).float().mean()}


def regression_loss(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the mean squared error as ``loss``, and the ``mean_absolute_error``, of outputs and targets (B, O)."""
    return {"loss": F.mse_loss(outputs, targets), "mean_absolute_error": F.l1_loss(outputs, targets)}


def check_size(name: str, given: int | None, actual: int) -> None:
    """Compare a given size with that of the data. Raises `DataError`."""
    if given is not None and given != actual:
        raise DataError(f"{name} must be {actual} for this data, not {given}.")


def label_of(record: Record, field: str) -> str:
    """Return the label of a record as text. Raises `DataError` if it is missing."""
    value = record.values[field]
    if value is None or value == "" or isinstance(value, list | dict):
        raise DataError(f"{record.where}: the field {field!r} must be a label, not {value!r}.")
    return str(value)


def number_of(record: Record, field: str) -> float:
    """Return a field that must be a finite number. Raises `DataError`."""
    value = record.values[field]
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{record.where}: the field {field!r} must be a number, not {value!r}.")
    return number


def _order(name: str) -> tuple[float, str]:
    """Sort key: numbers in their order, then other labels alphabetically."""
    try:
        number = float(name)
    except ValueError:
        return math.inf, name
    return (number if math.isfinite(number) else math.inf), name  # nan has no order
