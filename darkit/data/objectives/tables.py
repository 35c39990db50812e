"""Tables: predict a label or numbers from the numbers of a row (``data=table``)."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import TensorDataset

from darkit.data.objectives.labels import TargetReader, check_size, number_of, split_numbers
from darkit.data.sources.choice import DataChoice
from darkit.data.sources.source import Record
from darkit.data.text.corpus import read_parts
from darkit.errors import DataError


class TableRows(TensorDataset):
    """Pairs of inputs (features) and a label, or numbers (fields).

    Args:
        inputs: The features (rows, features).
        targets: The labels (rows) or numbers (rows, fields).
        facts: Data facts for ``run.json``.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(inputs, targets)
        self.facts = dict(facts or {})
        self.task = "classification" if self.facts.get("label_names") else "regression"


def table_data(
    path: Any,
    *,
    features: Sequence[str] | None,
    target: str | Sequence[str] | None,
    task: str = "classification",
    input_size: int | None = None,
    output_size: int | None = None,
    split: str = "train",
    val_fraction: float = 0.1,
    val_files: str | Sequence[str] | None = None,
    seed: int = 0,
) -> DataChoice:
    """Prepare the rows of a table, which are read once.

    Args:
        path: As for `darkit.data.open_source`, with these fields.
        features: The fields with the model's inputs.
        target: The field with the label, or the fields with the numbers to predict.
        task: ``classification`` or ``regression``.
        input_size: Number of features, to check against the data.
        output_size: Number of labels or of predicted numbers, likewise.
        split: The split of a Hugging Face dataset.
        val_fraction: Fraction held out for validation.
        val_files: Names or patterns of the validation files instead.
        seed: Seed of the split.

    Returns:
        The rows, a loss for models without one, as baseline the loss of predicting the label frequencies or the mean,
        and as settings the two sizes.

    Raises:
        DataError: The rows or a setting are invalid.
    """
    wanted = [target] if isinstance(target, str) else list(target or ())
    names = list(features or ())
    if not names or not wanted:
        raise DataError("A table needs the names of its fields: data.features=[...] and data.target=NAME.")
    if set(names) & set(wanted):
        raise DataError(f"A target cannot be a feature too, as {sorted(set(names) & set(wanted))[0]!r} is.")
    inputs, reader = array("d"), TargetReader(wanted, task)

    def read(record: Record) -> None:
        inputs.extend(number_of(record, name) for name in names)
        reader.add(record)

    parts = read_parts(
        path,
        (*names, *wanted),
        val_fraction=val_fraction,
        val_files=val_files,
        seed=seed,
        split=split,
        by=names,
        each=read,
    )
    targets = reader.targets(parts.split)
    check_size("input_size", input_size, len(names))
    check_size("output_size", output_size, targets.size)
    train, val = split_numbers(inputs, len(names), parts.split)
    facts = parts.facts | {"features": names, "target": wanted} | targets.facts
    return DataChoice(
        TableRows(train, targets.train, facts),
        TableRows(val, targets.val, facts) if len(val) else None,
        loss=targets.loss,
        baselines=targets.baselines,
        settings={"input_size": len(names), "output_size": targets.size},
    )
