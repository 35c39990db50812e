"""Numbers from a table, to find a label or further numbers by: the choice ``data=table``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from darkit.data.objectives.labels import check_size, number_of, read_targets
from darkit.data.sources.choice import DataChoice
from darkit.data.sources.splits import TRAIN, VAL
from darkit.data.text.corpus import read_parts
from darkit.errors import DataError


class TableRows(TensorDataset):
    """Pairs of inputs (features) and a label, or numbers (fields).

    Args:
        inputs: The features (rows, features).
        targets: What is to be found (rows) or (rows, fields).
        facts: What ``run.json`` tells of the data.
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
    """Prepares the rows of a table.

    Args:
        path: What `darkit.data.open_source` takes, with these fields.
        features: The fields with the numbers that go into the model.
        target: The field with the label, or the fields with the numbers to predict.
        task: ``classification`` or ``regression``.
        input_size: How many features the model takes; None takes what there is.
        output_size: How many labels or numbers it gives; likewise.
        split: Which split of a Hugging Face dataset.
        val_fraction: About which part of the rows to evaluate on.
        val_files: Names or patterns of the files to evaluate on instead.
        seed: Seed of the split.

    Returns:
        The rows, a loss for models that bring none, as baseline the loss of knowing only the labels' frequencies or the
        mean, and as settings the two sizes.

    Raises:
        DataError: The rows or a setting are not what this needs.
    """
    wanted = [target] if isinstance(target, str) else list(target or ())
    names = list(features or ())
    if not names or not wanted:
        raise DataError("A table needs the names of its fields: data.features=[...] and data.target=NAME.")
    if set(names) & set(wanted):
        raise DataError(f"A target cannot be a feature too, as {sorted(set(names) & set(wanted))[0]!r} is.")
    parts = read_parts(
        path, (*names, *wanted), val_fraction=val_fraction, val_files=val_files, seed=seed, split=split, by=names
    )
    targets = read_targets(parts, wanted, task)
    check_size("input_size", input_size, len(names))
    check_size("output_size", output_size, targets.size)
    rows = [[[number_of(record, name) for name in names] for record in parts.records(part)] for part in (TRAIN, VAL)]
    train, val = (torch.tensor(part, dtype=torch.float32).reshape(-1, len(names)) for part in rows)
    facts = parts.facts | {"features": names, "target": wanted} | targets.facts
    return DataChoice(
        TableRows(train, targets.train, facts),
        TableRows(val, targets.val, facts) if len(val) else None,
        loss=targets.loss,
        baselines=targets.baselines,
        settings={"input_size": len(names), "output_size": targets.size},
    )
