"""Labels keep their names, numbers are numbers, and what is neither is told with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.data.objectives.labels import TargetReader, Targets
from darkit.data.text.corpus import Parts, read_parts
from darkit.errors import DataError


def parts(values: list[Any], fraction: float = 0.3) -> Parts:
    rows = [{"text": f"text {number}", "label": value, "other": number} for number, value in enumerate(values)]
    return read_parts(rows, ("text", "label", "other"), val_fraction=fraction, val_files=None, seed=0)


def targets(
    values: list[Any], task: str = "classification", fields: tuple[str, ...] = ("label",), fraction: float = 0.3
) -> Targets:
    found, reader = parts(values, fraction), TargetReader(fields, task)
    for record in found.source.records():
        reader.add(record)
    return reader.targets(found.split)


def test_labels_are_numbered_in_an_order_that_a_person_would_choose() -> None:
    found = targets(["b", "a", "10", "9", "a", "b", "c", "9"])
    assert found.names == ("9", "10", "a", "b", "c")
    assert found.facts == {"label_names": ["9", "10", "a", "b", "c"]}
    split = parts(["b", "a", "10", "9", "a", "b", "c", "9"])
    for part, numbers in ((0, found.train), (1, found.val)):
        assert [found.names[number] for number in numbers] == [record.values["label"] for record in split.records(part)]


def test_labels_that_look_like_numbers_but_are_none_come_behind_those_that_are() -> None:
    assert targets(["nan", "2", "inf", "a", "1"]).names == ("1", "2", "a", "inf", "nan")


def test_truth_values_and_whole_numbers_are_labels_too() -> None:
    assert targets([True, False, True, False]).names == ("False", "True")
    assert targets([3, 1, 3, 1]).names == ("1", "3")


def test_numbers_are_predicted_several_at_once() -> None:
    found = targets(["1.5", 2, 3.25, "4"], "regression", ("label", "other"))
    assert found.names == ()
    assert found.facts == {}
    assert found.train.shape[1] == found.val.shape[1] == 2
    assert sorted(torch.cat([found.train, found.val])[:, 0].tolist()) == [1.5, 2, 3.25, 4]


def test_baselines_are_what_the_labels_alone_tell() -> None:
    frequent = targets(["a"] * 30 + ["b"] * 2).baselines["label frequencies"]
    assert 0 < frequent < 0.7
    mean = targets([1.0, 2.0, 3.0, 4.0], "regression")
    wanted = (mean.val - mean.train.mean(0)).square().mean().item()
    assert mean.baselines == {"always the mean": pytest.approx(wanted)}
    assert targets(["a", "b"], fraction=0).baselines == {}


@pytest.mark.parametrize(
    ("values", "task", "said"),
    [
        (["a", "b"], "ranking", "task must be one of classification, regression, not 'ranking'."),
        (
            ["a", "a"],
            "classification",
            "A classification needs two different labels in 'label' at least, but has only a.",
        ),
        (["a", None], "classification", "row 1: the field 'label' must be a label, not None."),
        (["a", ["b"]], "classification", "row 1: the field 'label' must be a label, not ['b']."),
        ([1, "x"], "regression", "row 1: the field 'label' must be a number, not 'x'."),
        ([1, float("nan")], "regression", "row 1: the field 'label' must be a number, not nan."),
    ],
)
def test_what_cannot_be_found_is_refused(values: list[Any], task: str, said: str) -> None:
    with pytest.raises(DataError) as refused:
        targets(values, task)
    assert str(refused.value) == said


def test_the_line_of_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nabc,1\nabd,\n")
    read = TargetReader(("label",), "regression").add
    with pytest.raises(DataError, match=r"rows\.csv, line 3: the field 'label' must be a number, not ''\.$"):
        read_parts(path, ("text", "label"), val_fraction=0, val_files=None, seed=0, each=read)
