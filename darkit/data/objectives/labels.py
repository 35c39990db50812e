"""What is to be found of a record: one of several labels, or numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darkit.data.sources.source import Record
from darkit.data.sources.splits import TRAIN, VAL
from darkit.data.text.corpus import Parts
from darkit.errors import DataError

TASKS = ("classification", "regression")


@dataclass(frozen=True)
class Targets:
    """What is to be found of the records of both parts.

    Attributes:
        train: Numbers of labels (records), or numbers to predict (records, fields).
        val: The same for evaluation.
        names: The labels by their numbers; none in a regression.
        loss: The loss of outputs and targets, and in a classification the accuracy besides.
    """

    train: Tensor
    val: Tensor
    names: tuple[str, ...]
    loss: Callable[[Tensor, Tensor], Any]

    @property
    def size(self) -> int:
        """How many numbers a model gives for a record."""
        return len(self.names) or self.train.shape[1]

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` tells: the labels, so that predictions can be named."""
        return {"label_names": list(self.names)} if self.names else {}

    @property
    def baselines(self) -> dict[str, float]:
        """The loss in evaluation of knowing only how frequent each label of the training part is, or its mean."""
        if not len(self.val):
            return {}
        if not self.names:
            return {"always the mean": F.mse_loss(self.train.mean(0).expand_as(self.val), self.val).item()}
        counts = torch.bincount(self.train, minlength=len(self.names)).float() + 1  # Laplace's smoothing
        logits = (counts / counts.sum()).log().expand(len(self.val), -1)
        return {"label frequencies": F.cross_entropy(logits, self.val).item()}


def read_targets(parts: Parts, fields: Sequence[str], task: str) -> Targets:
    """Reads what is to be found.

    Args:
        parts: The records.
        fields: The field with the label, or those with numbers.
        task: ``classification`` or ``regression``.

    Raises:
        DataError: The task is unknown, a label is missing or no number, or there is only one label.
    """
    if task not in TASKS:
        raise DataError(f"task must be one of {', '.join(TASKS)}, not {task!r}.")
    if task == "regression":
        train, val = (_numbers(parts, part, fields) for part in (TRAIN, VAL))
        return Targets(train, val, (), regression_loss)
    if len(fields) != 1:
        raise DataError(f"A classification has one field with the label, not {len(fields)}.")
    found = [[label_of(record, fields[0]) for record in parts.records(part)] for part in (TRAIN, VAL)]
    names = sorted({*found[0], *found[1]}, key=_order)
    if len(names) < 2:
        raise DataError(
            f"A classification needs two different labels in {fields[0]!r} at least, but has only {names[0]}."
        )
    numbers = {name: number for number, name in enumerate(names)}
    train, val = (torch.tensor([numbers[name] for name in labels], dtype=torch.int64) for labels in found)
    return Targets(train, val, tuple(names), classification_loss)


def classification_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Returns the mean cross-entropy in nats as ``loss``, and the ``accuracy``, of logits (B, O) and labels (B)."""
    return {"loss": F.cross_entropy(logits, labels), "accuracy": (logits.argmax(-1) == labels).float().mean()}


def regression_loss(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Returns the mean squared error as ``loss``, and the ``mean_absolute_error``, of outputs and targets (B, O)."""
    return {"loss": F.mse_loss(outputs, targets), "mean_absolute_error": F.l1_loss(outputs, targets)}


def check_size(name: str, given: int | None, there: int) -> None:
    """Compares a size that was given with the data's. Raises `DataError`."""
    if given is not None and given != there:
        raise DataError(f"{name} must be {there} for this data, not {given}.")


def label_of(record: Record, field: str) -> str:
    """Returns the label of a record as text. Raises `DataError` where it is missing."""
    value = record.values[field]
    if value is None or value == "" or isinstance(value, list | dict):
        raise DataError(f"{record.where}: the field {field!r} must be a label, not {value!r}.")
    return str(value)


def number_of(record: Record, field: str) -> float:
    """Returns a field that must be a finite number. Raises `DataError`."""
    value = record.values[field]
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{record.where}: the field {field!r} must be a number, not {value!r}.")
    return number


def _numbers(parts: Parts, part: int, fields: Sequence[str]) -> Tensor:
    rows = [[number_of(record, field) for field in fields] for record in parts.records(part)]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, len(fields))


def _order(name: str) -> tuple[float, str]:
    """Puts labels that are numbers in the order of these, and others behind in that of the alphabet."""
    try:
        number = float(name)
    except ValueError:
        return math.inf, name
    return (number if math.isfinite(number) else math.inf), name  # nan would be in no order with the others
