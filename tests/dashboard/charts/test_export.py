"""What one can take away: the points of a chart as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.export import chart_csv
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.view import View
from darkit.runs.notes import Evaluation, add_evaluation
from tests.dashboard.parts import STARTED, make_run


@pytest.mark.parametrize(
    ("axis", "heading", "last"),
    [("step", "step", 20.0), ("epoch", "epoch", 0.0), ("relative", "seconds", 0.19), ("wall", "time", STARTED + 0.2)],
)
def test_exported_x_is_that_of_the_chart_and_times_have_no_time_zone(
    home: Path, axis: str, heading: str, last: float
) -> None:
    make_run(home / "base", "one", 20)
    shown = Charts(Library(home / "base", LogCache())).chosen(["one"], "log")
    rows = list(csv.reader(io.StringIO("".join(chart_csv("train_loss", shown, View(axis=axis, offset=480))))))
    assert rows[0] == ["run", heading, "train_loss"]
    assert len(rows) == 21
    assert float(rows[-1][1]) == pytest.approx(last)


@pytest.mark.parametrize("zone", ["", "Europe/Berlin"])
@pytest.mark.parametrize(("axis", "x"), [("step", 20.0), ("wall", STARTED + 0.2)])
def test_an_evaluated_series_has_the_same_x(home: Path, axis: str, x: float, zone: str) -> None:
    folder = make_run(home / "base", "one", 20)
    (folder / "iter-20-ckpt.pth").write_bytes(b"x")
    add_evaluation(folder, Evaluation(STARTED + 99, "other.txt", "iter-20-ckpt", {"acc": 0.5}))
    shown = Charts(Library(home / "base", LogCache())).chosen(["one"], "log")
    (title,) = shown[0].evaluated
    _, row = csv.reader(io.StringIO("".join(chart_csv(title, shown, View(axis=axis, offset=480, zone=zone)))))
    assert float(row[1]) == pytest.approx(x)
    assert row[2] == "0.5"
