"""``darkit predict`` with classifiers and regressions: rows in, labels or numbers out."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from torch import Tensor, nn

import darkit
from darkit.cli.main import main
from darkit.data import labelled_text, table_data
from tests.cli.parts import done, names, refused

SHAPES = [
    {"width": n % 5, "height": n % 3, "area": n % 5 * (n % 3), "kind": "large" if n % 5 > 2 else "small"}
    for n in range(30)
]


class Bag(nn.Module):
    """Tells two labels by the mean of the words."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.words = nn.EmbeddingBag(size, 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.words(input_ids)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch["input_ids"]), batch["labels"])


@pytest.fixture
def table(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of shapes in the working directory, of which runs can tell the kind and a number."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shapes.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(SHAPES[0]))
        writer.writeheader()
        writer.writerows(SHAPES)
    features: dict[str, Any] = {"path": str(path), "features": ["width", "height"]}
    for name, size, data in (
        ("kinds", 2, table_data(**features, target="kind")),
        ("sizes", 1, table_data(**features, target="area", task="regression")),
    ):
        darkit.fit(nn.Linear(2, size), data.train, data.val, loss=data.loss, max_step=2, tensorboard=False, name=name)
    return path


def test_each_row_gets_its_label_in_a_column_behind(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = done(capsys, "predict", "kinds", "shapes.csv")
    rows = list(csv.DictReader(shown.splitlines()))
    assert [
        {**row, "width": int(row["width"]), "height": int(row["height"]), "area": int(row["area"])} for row in rows
    ] == [
        {**shape, "prediction": row["prediction"], "probability": row["probability"]}
        for shape, row in zip(SHAPES, rows, strict=True)
    ]
    assert {row["prediction"] for row in rows} <= {"large", "small"}
    said = done(capsys, "predict", "kinds", "shapes.csv", "--out", "labels.csv")
    assert said == "Wrote 30 predictions to labels.csv.\n"
    assert Path("labels.csv").read_text() == shown


def test_every_kind_of_file_gives_the_same(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [row["prediction"] for row in json.loads(done(capsys, "predict", "sizes", "shapes.csv", "--json"))]
    Path("rows.json").write_text(json.dumps(SHAPES))
    Path("rows.jsonl").write_text("".join(json.dumps(shape) + "\n" for shape in SHAPES))
    numpy.save("rows.npy", numpy.array([[shape["width"], shape["height"]] for shape in SHAPES]))
    for ending in ("json", "jsonl", "npy"):
        found = json.loads(done(capsys, "predict", "sizes", f"rows.{ending}"))
        assert [row["prediction"] for row in found] == wanted
        done(capsys, "predict", "sizes", f"rows.{ending}", "--out", f"out.{ending}")
    assert numpy.load("out.npy").tolist() == pytest.approx(wanted)
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert lines == json.loads(Path("out.json").read_text())
    given = done(capsys, "predict", "sizes", json.dumps(SHAPES))
    assert [row["prediction"] for row in json.loads(given)] == wanted


def test_rows_as_json_are_as_wide_as_the_table(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = done(capsys, "predict", "sizes", '[{"width": 1, "height": 2}]')
    (given,) = json.loads(rows)
    (plain,) = json.loads(done(capsys, "predict", "sizes", "[[1, 2]]"))
    assert plain["prediction"] == given["prediction"]
    assert refused(capsys, "predict", "sizes", "[[1]]") == "INPUT has 1 column, but the run's model takes 2."


def test_texts_of_a_file_get_labels_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"{word} number {number}", "label": word} for number in range(10) for word in ("good", "bad")]
    data = labelled_text(rows, vocab_size=60, context_length=8)
    model = Bag(data.settings["vocab_size"])
    darkit.fit(model, data.train, data.val, tokenizer=data.tokenizer, max_step=2, tensorboard=False, name="texts")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(done(capsys, "predict", "texts", "rows.jsonl"))
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert {row["prediction"] for row in found} <= {"good", "bad"}


def test_a_label_cannot_steer_the_terminal(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"text": f"{word} number {number}", "label": f"\x1b[31m{word}"} for number in range(9) for word in ("a", "b")
    ]
    data = labelled_text(rows, vocab_size=60, context_length=8)
    model = Bag(data.settings["vocab_size"])
    darkit.fit(model, data.train, data.val, tokenizer=data.tokenizer, max_step=2, tensorboard=False, name="texts")
    assert "\x1b[31m" in done(capsys, "predict", "texts", "number 3")
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["predict", "texts", "number 3"]) == 0
    assert "\x1b" not in screen.getvalue()
    assert "\\x1b[31m" in screen.getvalue()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone.csv",), "The file gone.csv does not exist."),
        (
            ("shapes.csv", "--out", "labels.xlsx"),
            "The output file must end with .csv, .npy, .json or .jsonl, but is 'labels.xlsx'",
        ),
        (("shapes.csv", "--out", "gone/labels.csv"), "Cannot write labels.csv: the folder gone does not exist."),
        (("[[1, 2]]", "--out", "labels.csv"), "--out needs a table file"),
        (("[[1, 2, 3]]",), "INPUT has 3 columns, but the run's model takes 2."),
        (('[{"width": 1}]',), "INPUT has no column 'height', which the run needs. Available: width."),
        (('[{"width": 1, "height": 2}, {"width": 1}]',), "INPUT, row 2 has no 'height', which the first row has."),
        (("[[1, 2], [3]]",), "INPUT, row 2 has 1 column, but the first has 2."),
        (('[["x", 2]]',), "INPUT, row 1: the column 'width' must be a number, not 'x'."),
        (("words",), "The run 'kinds' has no tokenizer: its model takes numbers as JSON"),
    ],
)
def test_what_cannot_be_labelled_is_refused_and_leaves_nothing(
    words: tuple[str, ...], said: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "predict", "kinds", *words).startswith(said)
    assert "labels.csv" not in names(tmp_path)
