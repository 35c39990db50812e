"""Predictions for whole tables, texts and JSON, as ``darkit predict`` asks for them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkit.engine.steps.loss import batch_errors
from darkit.errors import ConfigError, DataError
from darkit.prediction.classification import read_predictions
from darkit.prediction.predicter import Predicter
from darkit.prediction.rows import TEXT, Rows, rows_of, write_rows
from darkit.prediction.tasks import column_names
from darkit.runs import Run
from darkit.runs.example import example_input, first_input
from darkit.runs.tasks import CLASSIFICATION, REGRESSION

_BATCH_SIZE = 1024  # rows


def predict_rows(predicter: Predicter, run: Run, rows: Rows, *, text_field: str = TEXT) -> Rows:
    """Predict a label or numbers for each row of a table.

    Args:
        predicter: Of a classification or regression.
        run: Its run.
        rows: The table.
        text_field: The column with the text, if the table has several and the model takes text.

    Returns:
        The table with the predictions in further columns.

    Raises:
        DataError: A column is missing, a value is not a number, or a prediction does not fit into a table.
    """
    predictions = list(_predictions(predicter, run, rows, text_field))
    names, values = _columns(predictions)
    kept = rows.names if rows.values else []
    before = rows.values if kept else [[] for _ in predictions]
    return Rows(rows.where, [*kept, *names], [[*row, *new] for row, new in zip(before, values, strict=True)])


def write_predictions(path: Path, rows: Rows) -> None:
    """Write what `predict_rows` returned; a ``.npy`` gets the predictions alone. Raises as `write_rows`."""
    if path.suffix == ".npy":
        columns = [column for column, name in enumerate(rows.names) if name.startswith("prediction")]
        rows = Rows(rows.where, values=[[row[column] for column in columns] for row in rows.values])
    write_rows(path, rows)


def predict_json(predicter: Predicter, run: Run, text: str) -> Any:
    """Predict for an input given as JSON, with a model that takes numbers.

    Args:
        predicter: Of the run.
        run: The run.
        text: Numbers, a dict of numbers for a model with named inputs, or the rows of a table.

    Returns:
        `Rows` for objects with named columns, and for rows of a run with known columns or labels; else the model's
        output as plain values.

    Raises:
        ConfigError: The text is not such JSON.
        DataError: As `predict_rows`.
    """
    with _json_errors(run, text):
        value = json.loads(text)
    if predicter.task in (CLASSIFICATION, REGRESSION):
        rows = rows_of(value, "INPUT")
        if rows is not None and (rows.names or column_names(run)[0] or predicter.label_names):
            return predict_rows(predicter, run, rows)
    dtype = _float_type(run, predicter.model)
    with _json_errors(run, text):
        named = isinstance(value, dict)
        tensors = {key: torch.tensor(item, dtype=dtype) for key, item in (value if named else {"": value}).items()}
        inputs = tensors if named else tensors[""]
    with batch_errors(inputs):
        return as_plain(predicter.predict(inputs))


def as_plain(output: Any) -> Any:
    """Return a prediction or a model's output as values that JSON can hold."""
    if hasattr(output, "tolist"):
        return output.tolist()
    if isinstance(output, dict):  # also the outputs of transformers, whose empty fields are no items
        return {key: as_plain(value) for key, value in output.items()}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: as_plain(getattr(output, field.name)) for field in dataclasses.fields(output)}
    if isinstance(output, tuple | list):
        return [as_plain(value) for value in output]
    return output


def _predictions(predicter: Predicter, run: Run, rows: Rows, text_field: str) -> Iterator[Any]:
    if predicter.tokenizer is not None:
        texts = rows.column(rows.names[0] if len(rows.names) == 1 else text_field)
        yield from predicter.predict([str(text) for text in texts])
        return
    if rows.array is not None:
        values = torch.from_numpy(rows.array)
    else:
        features, _ = column_names(run)
        first = first_input(run.info)
        width = first[1][0] if first is not None and len(first[1]) == 1 else None
        values = torch.tensor(rows.numbers(features, width), dtype=torch.float64)
    values = values.to(_float_type(run, predicter.model) or torch.int64)
    for batch in torch.split(values, _BATCH_SIZE):
        with batch_errors(batch):
            output = predicter.predict(batch)
        yield from read_predictions(output, predicter.task, predicter.label_names)


def _float_type(run: Run, model: nn.Module) -> torch.dtype | None:
    """Return the dtype of numbers for a model that takes floats; None keeps the type that they have in JSON."""
    first = first_input(run.info)
    whole = any(isinstance(part, nn.Embedding) for part in model.modules()) if first is None else first[0] != "float"
    parameter = next(model.parameters(), None)
    return None if whole or parameter is None or not parameter.is_floating_point() else parameter.dtype


def _columns(predictions: Sequence[Any]) -> tuple[list[str], list[list[Any]]]:
    """Return names and values of the columns for predictions."""
    first = predictions[0]
    if hasattr(first, "label"):
        return ["prediction", "probability"], [[item.label, round(item.probability, 6)] for item in predictions]
    if not isinstance(first, list):
        return ["prediction"], [[item] for item in predictions]
    if any(isinstance(value, list) for value in first):
        raise DataError("The model returns more than one row of numbers for each row, which does not fit into a table.")
    return [f"prediction_{number + 1}" for number in range(len(first))], [list(item) for item in predictions]


@contextmanager
def _json_errors(run: Run, text: str) -> Iterator[None]:
    """Raise `ConfigError` for an input that is not JSON or of which no tensor can be made."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        example = example_input(run.path, run.info).replace("INPUT", '"[[1.0, 2.0]]"')
        raise ConfigError(
            f"The run {run.name!r} has no tokenizer: its model takes numbers as JSON, such as {example}, not "
            f"{text[:60]!r} ({error})."
        ) from error
