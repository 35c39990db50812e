"""What W&B's ``log`` takes, as what a run of darkit takes: flat columns, and W&B's classes of media."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import numpy
from torch import Tensor

from darkit.engine.log import media
from darkit.engine.log.media import is_media
from darkit.errors import ConfigError, LogError

logger = logging.getLogger(__name__)
_OWN = ("step", "time")  # columns that darkit fills itself
_LONGEST_LIST = 32  # numbers of an array that W&B keeps as a list; of a longer one it keeps a histogram
_BINS = 32
_told: set[str] = set()


class Image(media.Image):
    """``wandb.Image(image, caption=...)``; see `darkit.Image`. An array needs fractions from 0 to 1, or bytes.

    Raises:
        ConfigError: Another argument of W&B's class is given.
    """

    def __init__(self, data_or_path: Any, mode: str | None = None, caption: str | None = None, **others: Any) -> None:
        _refuse("Image", {"mode": mode, **others}, "")
        super().__init__(data_or_path, caption or "")


class Audio(media.Audio):
    """``wandb.Audio(sound, sample_rate=..., caption=...)``; see `darkit.Audio`."""

    def __init__(self, data_or_path: Any, sample_rate: int | None = None, caption: str | None = None) -> None:
        super().__init__(data_or_path, sample_rate, caption or "")


class Histogram(media.Histogram):
    """``wandb.Histogram(values)`` or ``wandb.Histogram(np_histogram=(counts, edges))``; see `darkit.Histogram`."""

    def __init__(self, sequence: Any = None, np_histogram: Any = None, num_bins: int = 64) -> None:
        if (sequence is None) == (np_histogram is None):
            raise ConfigError("wandb.Histogram takes either values or np_histogram=(counts, edges).")
        if np_histogram is None:
            super().__init__(sequence, num_bins)
        else:
            counts, edges = np_histogram
            super().__init__(counts, edges=numpy.asarray(edges).tolist())


class Table(media.Table):
    """``wandb.Table(columns=..., data=...)``, which may grow with ``add_data``; see `darkit.Table`.

    Attributes:
        columns: The names of the columns.
        data: The rows.

    Raises:
        ConfigError: Another argument of W&B's class is given.
    """

    def __init__(
        self,
        columns: Sequence[str] | None = None,
        data: Any = None,
        rows: Any = None,
        dataframe: Any = None,
        **others: Any,
    ) -> None:
        _refuse("Table", others, "allow_mixed_types")
        if dataframe is not None:
            columns, data = list(dataframe.columns), dataframe.to_numpy().tolist()
        data = data if data is not None else rows
        self.columns = list(columns) if columns is not None else ["Input", "Output", "Expected"]
        self.data = [list(row) for row in (data if data is not None else ())]
        super().__init__(self.columns, self.data)

    def add_data(self, *row: Any) -> None:
        """Add a row. Raises `ConfigError` if it has not one cell for each column."""
        if len(row) != len(self.columns):
            raise ConfigError(f"The table has {len(self.columns)} columns, and add_data() got {len(row)} cells.")
        self.data.append(list(row))

    def add_column(self, name: str, data: Sequence[Any]) -> None:
        """Add a column. Raises `ConfigError` if it has not one cell for each row."""
        if self.data and len(data) != len(self.data):
            raise ConfigError(f"The table has {len(self.data)} rows, and the column {name!r} has {len(data)} cells.")
        self.columns.append(name)
        self.data[:] = [[*row, cell] for row, cell in zip(self.data or [[] for _ in data], data, strict=True)]

    def get_column(self, name: str) -> list[Any]:
        """Return the cells of a column."""
        return [row[self.columns.index(name)] for row in self.data]


def columns_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as darkit logs them: nested mappings by joined names, lists as JSON, long arrays as histograms.

    Raises:
        LogError: A name or a value does not fit.
    """
    if not isinstance(values, Mapping):
        raise LogError(f"log() takes a dict of values by name, not {type(values).__name__}.")
    return dict(_flat(values, ""))


def column_name(name: str) -> str:
    """Return the column of a name; darkit's own columns are not replaced."""
    if name not in _OWN:
        return name
    if name not in _told:
        _told.add(name)
        logger.warning("%r is logged as 'logged_%s', because darkit has a column of that name.", name, name)
    return f"logged_{name}"


def _flat(values: Mapping[Any, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if not isinstance(key, str):
            raise LogError(f"Names of logged values must be text, not {key!r}.")
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list | tuple) and value and all(is_media(one) for one in value):
            yield from ((f"{name}/{number}", one) for number, one in enumerate(value))
        else:
            yield column_name(name), _logged(name, value)


def _logged(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str) or is_media(value):
        return value
    if hasattr(value, "columns") and hasattr(value, "itertuples"):  # a data frame of pandas
        return media.Table(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Tensor | numpy.ndarray):
        size = value.numel() if isinstance(value, Tensor) else value.size
        if size == 1:
            return value.item()
        return media.Histogram(value, _BINS) if size > _LONGEST_LIST else json.dumps(value.tolist())
    if isinstance(value, list | tuple | set | range):
        try:
            return json.dumps([_plain(one) for one in value])
        except (TypeError, ValueError) as error:
            raise LogError(f"{name!r} is a list of values that JSON does not have ({error}).") from error
    return value


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor | numpy.ndarray | numpy.generic) else value


def _refuse(name: str, given: Mapping[str, Any], allowed: str) -> None:
    for key, value in given.items():
        if value is not None and key != allowed:
            raise ConfigError(f"darkit.integrations.wandb does not support {key}= of wandb.{name}.")
