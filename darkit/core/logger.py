"""Logging from a hand-written loop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from darkit.engine.log.media import split
from darkit.engine.log.values import snapshot
from darkit.errors import LogError


@dataclass
class LogFieldnames:
    """One row of the log with the default columns; subclass or replace it for others. None leaves a field empty."""

    step: int | None = None
    epoch: int | None = None
    time: float | None = None
    lr: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None


class CsvLogger:
    """Append rows to a run's log without waiting for a disk or a device.

    Args:
        put: Appends one row and, if there are any, its media; see `darkit.engine.log.rows.RowStream`.
    """

    def __init__(self, put: Callable[..., None]) -> None:
        self._put = put

    def log(self, row: Any = None, /, **values: Any) -> None:
        """Append a row.

        Args:
            row: A dataclass instance such as `LogFieldnames`, a mapping, or None.
            **values: Further columns, or media such as `darkit.Image`.

        Raises:
            MediaError: A medium cannot be logged.
            LogError: The row has another type, a tensor or array does not have one element, or a column is unknown.
        """
        columns, media = split(columns_of(row) | values)
        for name, value in columns.items():
            if isinstance(value, torch.Tensor | numpy.ndarray) and math.prod(value.shape) != 1:
                raise LogError(f"{name} must be a single number, but its shape is {tuple(value.shape)}.")
            if isinstance(value, torch.Tensor):
                columns[name] = snapshot(name, value)  # a loop may change it in place before it is read
            elif isinstance(value, numpy.ndarray | numpy.generic):
                columns[name] = value.item()
        self._put(columns, *([media] if media else []))


def columns_of(row: Any) -> dict[str, Any]:
    """Return a row's values by column. Raises `LogError` for anything but a dataclass instance, a mapping or None."""
    if row is None:
        return {}
    if isinstance(row, Mapping):
        return dict(row)
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    raise LogError(f"A row must be a dataclass instance, a mapping or keyword arguments, not {type(row).__name__}.")
