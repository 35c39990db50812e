"""The rows of a table as features and what is to be found of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.data import DataChoice, table_data
from darkit.data.objectives.labels import classification_loss, regression_loss
from darkit.data.sources import source
from darkit.errors import DataError

ROWS = [{"a": number, "b": number / 2, "c": "xyz"[number % 3], "d": -number} for number in range(30)]


def made(**options: Any) -> DataChoice:
    return table_data(ROWS, **{"features": ["a", "b"], "target": "c", **options})


def test_rows_become_features_and_labels() -> None:
    choice = made()
    for part in (choice.train, choice.val):
        for inputs, label in part:
            assert inputs.tolist() == [inputs[0], inputs[0] / 2]
            assert choice.train.facts["label_names"][label] == "xyz"[int(inputs[0]) % 3]
    assert choice.train[0][0].dtype == torch.float32
    assert len(choice.train) + len(choice.val) == 30
    assert choice.train.facts["features"] == ["a", "b"]
    assert choice.loss is classification_loss
    assert choice.settings == {"input_size": 2, "output_size": 3}


def test_numbers_are_predicted() -> None:
    choice = made(target=["d", "b"], features=["a"], task="regression", input_size=1, output_size=2)
    inputs, targets = choice.train[3]
    assert targets.tolist() == [-inputs.item(), inputs.item() / 2]
    assert choice.loss is regression_loss
    assert made(target="d", task="regression").train[0][1].shape == (1,)
    assert made(val_fraction=0).val is None


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_table_is_parsed_once(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,c\n" + "".join(f"{row['a']},{row['b']},{row['a'] % 3}\n" for row in ROWS))
    read, calls = source.read_file, []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(source, "read_file", counted)
    choice = table_data(path, features=["a", "b"], target="c", task=task)
    assert len(calls) == 1
    assert len(choice.train) + len(choice.val) == 30


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input_size": 3}, "input_size must be 2 for this data, not 3."),
        ({"output_size": 2}, "output_size must be 3 for this data, not 2."),
        ({"features": []}, "A table needs the names of its fields: data.features=[...] and data.target=NAME."),
        ({"features": ["a", "c"]}, "A target cannot be a feature too, as 'c' is."),
        ({"features": ["a", "c"], "target": "b"}, "row 0: the field 'c' must be a number, not 'x'."),
        ({"features": ["aa"]}, "row 0: no field 'aa'. Did you mean 'a'? Available: a, b, c, d."),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as refused:
        made(**options)
    assert str(refused.value) == said
