"""Labels and numbers for the rows of a table, or for texts, as ``darkit predict`` gives them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.cli.rows import ENDINGS, TEXT, Rows, as_csv, as_json, read_rows, rows_of, write_rows
from darkit.cli.terminal import text_for_output
from darkit.errors import DataError
from darkit.runs import Run
from darkit.runs.example import first_input

if TYPE_CHECKING:
    import torch
    from torch import nn

    from darkit.core import Predicter

_AT_ONCE = 1024  # rows


def is_file(word: str) -> bool:
    """Says whether an INPUT is meant to be a file."""
    return (
        len(word) < 4096 and "\n" not in word and Path(word).suffix in ENDINGS and word.lstrip()[:1] not in ("[", "{")
    )


def label_file(predicter: Predicter, run: Run, path: Path, out: Path | None, *, as_objects: bool) -> None:
    """Reads a table, predicts for each row, and writes or prints the table with the predictions behind.

    Args:
        predicter: Of a classification or regression.
        run: The run.
        path: The table.
        out: Where to write, or None to print.
        as_objects: Whether to print JSON whatever the table was.
    """
    rows = read_rows(path)
    found = label_rows(predicter, run, rows)
    if out is None:
        as_table = path.suffix == ".csv" and not as_objects
        print(text_for_output(as_csv(found)) if as_table else as_json(found), end="" if as_table else "\n")
        return
    if out.suffix == ".npy":  # numbers alone, or labels
        places = [place for place, name in enumerate(found.names) if name.startswith("prediction")]
        found = Rows(found.where, values=[[row[place] for place in places] for row in found.values])
    write_rows(out, found)
    print(f"{len(found.values)} predictions are in {out}.")


def label_json(predicter: Predicter, run: Run, text: str) -> bool:
    """Prints predictions for what was given as JSON: objects with named columns, or rows of a known table or labels.

    Returns:
        Whether it was that.
    """
    from darkit.prediction.tasks import column_names

    try:
        rows = rows_of(json.loads(text), "INPUT")
    except ValueError:
        return False
    features, _ = column_names(run)
    if rows is None or not (rows.names or features or predicter.label_names):
        return False
    print(as_json(label_rows(predicter, run, rows)))
    return True


def label_rows(predicter: Predicter, run: Run, rows: Rows) -> Rows:
    """Returns the rows with the predictions in columns behind."""
    predictions = list(_predictions(predicter, run, rows))
    names, values = _columns(predictions)
    kept = rows.names if rows.values else []
    before = rows.values if kept else [[] for _ in predictions]
    return Rows(rows.where, [*kept, *names], [[*row, *new] for row, new in zip(before, values, strict=True)])


def as_plain(prediction: Any) -> Any:
    """Makes of a prediction what JSON can hold."""
    return dataclasses.asdict(prediction) if dataclasses.is_dataclass(prediction) else prediction  # type: ignore[arg-type]


def _predictions(predicter: Predicter, run: Run, rows: Rows) -> Iterator[Any]:
    import torch

    from darkit.engine.steps.loss import batch_errors
    from darkit.prediction.classification import read_off
    from darkit.prediction.tasks import column_names

    if predicter.tokenizer is not None:
        texts = rows.column(rows.names[0] if len(rows.names) == 1 else _text_field(run))
        yield from predicter.predict([str(text) for text in texts])
        return
    if rows.array is not None:
        values = torch.from_numpy(rows.array)
    else:
        features, _ = column_names(run)
        first = first_input(run.info)
        width = first[1][0] if first is not None and len(first[1]) == 1 else None
        values = torch.tensor(rows.numbers(features, width), dtype=torch.float64)
    values = values.to(float_type(run, predicter.model) or torch.int64)
    for part in torch.split(values, _AT_ONCE):
        with batch_errors(part):
            output = predicter.predict(part)
        yield from read_off(output, predicter.task, predicter.label_names)


def float_type(run: Run, model: nn.Module) -> torch.dtype | None:
    """Returns the type that numbers are read as for a model that takes floats; None takes what JSON says."""
    from torch.nn import Embedding

    first = first_input(run.info)
    whole = any(isinstance(part, Embedding) for part in model.modules()) if first is None else first[0] != "float"
    parameter = next(model.parameters(), None)
    return None if whole or parameter is None or not parameter.is_floating_point() else parameter.dtype


def _columns(predictions: Sequence[Any]) -> tuple[list[str], list[list[Any]]]:
    """Returns names and values of the columns that predictions make."""
    first = predictions[0]
    if hasattr(first, "label"):
        return ["prediction", "probability"], [[item.label, round(item.probability, 6)] for item in predictions]
    if not isinstance(first, list):
        return ["prediction"], [[item] for item in predictions]
    if any(isinstance(value, list) for value in first):
        raise DataError("The model gives more than a row of numbers for each row, which no table can hold.")
    return [f"prediction_{number + 1}" for number in range(len(first))], [list(item) for item in predictions]


def _text_field(run: Run) -> str:
    """Returns what the run's data calls its texts."""
    from darkit.cli.recorded import read_composed

    data = read_composed(run).get("data")
    found = data.get("field") if isinstance(data, dict) else None
    return found if isinstance(found, str) and found else TEXT
