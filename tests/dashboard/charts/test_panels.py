"""Which charts a page has: their order, sections, families, and charts of several series that a reader made."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.colours import DASHES, colour, dash
from darkit.dashboard.charts.curves import Band
from darkit.dashboard.charts.export import chart_csv
from darkit.dashboard.charts.figures import GroupBand, chart_figure
from darkit.dashboard.charts.panels import columns_of, panels_of
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.view import View
from darkit.runs import files
from darkit.runs.notes import OWN_DATA, Evaluation, Notes, add_evaluation, read_notes, set_colour, write_notes
from tests.dashboard.charts.test_charts import decoded, traces
from tests.dashboard.parts import add_columns, make_run


@pytest.fixture
def charts(home: Path) -> Charts:
    for seed, name in enumerate(("a", "b")):
        rates = {f"firing_rate_{layer}": lambda step, layer=layer: step * layer for layer in range(12)}
        grouped = {f"grad/{part}": lambda step: step for part in ("norm", "max", "min")}
        add_columns(make_run(home / "base", name, 60, seed=seed), {**rates, **grouped, "alone/x": lambda step: step})
    return Charts(Library(home / "base", LogCache()))


def ids(charts: Charts, view: View, names: tuple[str, ...] = ("a", "b")) -> list[tuple[str, str]]:
    return [(panel.section, panel.id) for panel in panels_of(charts.chosen(names, "log"), view)]


def drawn(charts: Charts, names: list[str], view: View, chart: str) -> dict[str, Any]:
    return json.loads(charts.draw(names, view, [chart]))["figures"][chart]


def test_evaluations_come_first_learning_rates_last_families_share_a_chart_and_prefixes_are_sections(
    charts: Charts,
) -> None:
    found = ids(charts, View())
    assert found == [
        *(("", name) for name in ("val_loss", "train_loss", "alone/x", "firing_rate_*", "lr")),
        *(("grad", f"grad/{part}") for part in ("max", "min", "norm")),
    ]
    panel = next(one for one in panels_of(charts.chosen(["a"], "log"), View()) if one.id == "firing_rate_*")
    assert panel.members == tuple(f"firing_rate_{layer}" for layer in range(12))
    apart = [name for _, name in ids(charts, View(apart=("firing_rate_*",)))]
    assert apart[3:15] == list(panel.members)
    joined = ids(charts, View(joined=(("train_loss", "val_loss"), ("lr", "gone"))))
    assert joined[0] == ("", "train_loss + val_loss")
    assert ("", "lr") in joined
    assert {"lr", "firing_rate_3"} <= set(columns_of(charts.chosen(["a"], "log")))


def test_in_a_chart_of_several_series_a_run_keeps_its_colour_and_alone_each_series_has_one(charts: Charts) -> None:
    several = drawn(charts, ["a", "b"], View(), "firing_rate_*")
    lines = {trace["name"]: trace["line"] for trace in traces(several, "raw")}
    assert len(lines) == 24
    places = {run.facts.name: run.index for run in charts.chosen(["a", "b"], "log")}
    for run, place in places.items():
        assert {line["color"] for name, line in lines.items() if name.startswith(f"{run} ·")} == {colour(place)}
    assert [lines[f"a · firing_rate_{layer}"]["dash"] for layer in range(4)] == list(DASHES)
    alone = {trace["name"]: trace["line"] for trace in traces(drawn(charts, ["a"], View(), "firing_rate_*"), "raw")}
    assert [alone[f"firing_rate_{layer}"]["color"] for layer in range(8)] == [colour(layer) for layer in range(8)]
    assert alone["firing_rate_8"]["dash"] == dash(8)
    bands = traces(drawn(charts, ["a", "b"], View(group=("trainer.lr",)), "firing_rate_*"), "mean")
    assert len(bands) == 12


def test_any_column_is_the_x_axis_and_news_continue_every_series_of_a_chart(home: Path, charts: Charts) -> None:
    shown = drawn(charts, ["a"], View(x="firing_rate_2"), "train_loss")
    assert decoded(traces(shown, "raw")[0]["x"]) == [2.0 * step for step in range(1, 61)]
    assert shown["layout"]["xaxis"]["title"]["text"] == "firing_rate_2"
    news = charts.news(["a"], View(), {"firing_rate_*": {"a": [0, 58]}})
    pieces = {piece[4]: decoded(piece[3]) for piece in news["append"]["firing_rate_*"]}
    assert pieces == {f"firing_rate_{layer}": [59.0 * layer, 60.0 * layer] for layer in range(12)}
    assert news["count"] == 8
    rows = list(csv.reader(io.StringIO("".join(chart_csv("firing_rate_*", charts.chosen(["a"], "log"), View())))))
    assert rows[0] == ["run", "series", "step", "value"]
    assert rows[-1] == ["a", "firing_rate_11", "60", "660"]
    assert len(rows) == 1 + 12 * 60


def test_later_evaluations_are_series_at_the_steps_of_their_checkpoints(home: Path, charts: Charts) -> None:
    folder = home / "base" / "a"
    for step, loss in ((40, 2.0), (20, 3.0), (40, 1.5)):
        add_evaluation(folder, Evaluation(1.8e9, "other.txt", f"iter-{step}-ckpt", {"loss": loss}))
    add_evaluation(folder, Evaluation(1.8e9, OWN_DATA, "best", {"loss": 9.0}))
    name = "evaluated/loss · other.txt"
    assert ("", name) in ids(charts, View(), ("a",))
    (line,) = traces(drawn(charts, ["a"], View(smooth=0.9), name), "raw")
    assert (decoded(line["x"]), decoded(line["y"])) == ([20, 40], [3.0, 1.5])
    (line,) = traces(drawn(charts, ["a"], View(axis="relative"), name), "raw")
    assert decoded(line["x"]) == pytest.approx([0.19, 0.39])
    rows = list(csv.reader(io.StringIO("".join(chart_csv(name, charts.chosen(["a"], "log"), View())))))
    assert rows[1:] == [["a", "20", "3"], ["a", "40", "1.5"]]


def test_smoothing_leaves_rare_values_alone_and_weighs_curves_of_other_intervals_alike(
    home: Path, charts: Charts
) -> None:
    shown = drawn(charts, ["a", "b"], View(smooth=0.8), "val_loss")
    assert len(traces(shown, "raw")) == 2
    assert not traces(shown, "smooth")
    make_run(home / "base", "rare", 6)
    lines = (home / "base" / "rare" / "train_log.csv").read_text().splitlines()
    text = "\n".join([lines[0], *(f"{step},0,{step},0.1,{float(step)}," for step in range(10, 61, 10))]) + "\n"
    (home / "base" / "rare" / "train_log.csv").write_text(text)
    shown = drawn(charts, ["a", "rare"], View(smooth=0.8), "train_loss")
    smooth = {trace["meta"]["run"]: decoded(trace["y"]) for trace in traces(shown, "smooth")}
    steps = np.arange(1.0, 61)
    raw = decoded(next(one for one in traces(shown, "raw") if one["meta"]["run"] == "a")["y"])
    weights = 0.8 ** ((60 - steps) / 10)  # the widest interval of the chart counts
    assert smooth["a"][-1] == pytest.approx(np.sum(weights * raw) / weights.sum())
    own = 0.8 ** np.arange(5, -1, -1.0)
    assert smooth["rare"][-1] == pytest.approx(np.sum(own * np.arange(10, 61, 10)) / own.sum())


def test_a_band_has_the_name_of_its_group_at_its_end_and_labels_keep_apart(home: Path, charts: Charts) -> None:
    make_run(home / "base", "c", 60, lr=0.5)
    layout = drawn(charts, ["a", "b", "c"], View(group=("trainer.lr",)), "train_loss")["layout"]
    texts = {note["text"]: note["y"] for note in layout["annotations"]}
    assert texts.keys() == {"<b>0.001</b>", "<b>0.5</b>"}
    first, second = texts.values()
    assert abs(first - second) > 0.1
    x, wide = np.array([1.0, 2.0]), np.array([5.0, 5.0])
    bands = [GroupBand(name, 0, 2, Band(x, np.full(2, mean), wide)) for name, mean in (("a", 1.0), ("b", 1.01))]
    low, high = (note["y"] for note in chart_figure("loss", [], bands, View())["layout"]["annotations"])
    assert high - low > 0.5  # of an axis from -4 to 6, on which the means alone are neighbours


def test_a_group_with_one_value_is_a_point_with_its_error_bar() -> None:
    band = GroupBand("a", 0, 2, Band(np.array([5.0]), np.array([1.0]), np.array([0.25])))
    (mean,) = [one for one in chart_figure("loss", [], [band], View())["data"] if one["meta"]["kind"] == "mean"]
    assert mean["mode"] == "lines+markers"
    assert mean["error_y"]["array"] == [0.25]


def test_charts_of_a_machine_begin_with_its_processor_and_those_of_a_card_stand_together(
    home: Path, charts: Charts
) -> None:
    columns = ("gpu10_use", "disk_free", "gpu2_memory", "odd", "gpu2_use", "memory", "cpu")
    row = ",".join("1" for _ in columns)
    (home / "base" / "a" / files.SYSTEM_LOG).write_text(f"time,step,{','.join(columns)}\n1,1,{row}\n2,2,{row}\n")
    view = View(source="system", axis="wall")
    ids = [panel.id for panel in panels_of(charts.chosen(["a"], "system"), view)]
    assert ids == ["cpu", "memory", "gpu2_use", "gpu2_memory", "gpu10_use", "disk_free", "odd"]


def test_a_chosen_colour_is_kept_with_the_run_and_touches_no_words(home: Path, charts: Charts) -> None:
    folder = home / "base" / "a"
    revision = write_notes(folder, Notes(("tag",), "words")).revision
    set_colour(folder, 5)
    assert charts.chosen(["b", "a"], "log")[1].index % 8 == 5
    notes = read_notes(folder)
    assert (notes.colour, notes.tags, notes.note, notes.revision) == (5, ("tag",), "words", revision)
    write_notes(folder, Notes(("tag",), "other words"))
    assert read_notes(folder).colour == 5
    set_colour(folder, None)
    assert read_notes(folder).colour is None


def test_with_a_column_as_x_marks_and_later_evaluations_stand_in_that_column(home: Path, charts: Charts) -> None:
    folder = home / "base" / "a"
    (folder / "iter-40-ckpt.pth").write_bytes(b"x")
    add_evaluation(folder, Evaluation(1.8e9, "other.txt", "iter-40-ckpt", {"loss": 2.0}))
    files.write_json(folder / files.STATUS, {**files.read_json(folder / files.STATUS), "diverged": 50})
    view = View(x="firing_rate_2")
    shown = drawn(charts, ["a"], view, "train_loss")
    (saved,), (lost,) = traces(shown, "checkpoint"), traces(shown, "odd")
    assert (saved["x"], decoded(lost["x"])) == ([80.0], [100.0])
    name = "evaluated/loss · other.txt"
    (line,) = traces(drawn(charts, ["a"], view, name), "raw")
    assert decoded(line["x"]) == [80.0]
    rows = list(csv.reader(io.StringIO("".join(chart_csv(name, charts.chosen(["a"], "log"), view)))))
    assert rows == [["run", "firing_rate_2", name], ["a", "80", "2"]]


def test_a_chart_whose_series_has_become_a_family_is_asked_for_anew_but_not_one_of_a_run_that_is_gone(
    home: Path, charts: Charts
) -> None:
    seen = {"firing_rate_3": {"a": [0, 60]}, "of_another_run": {"a": [0, 60]}, "train_loss": {"a": [0, 60]}}
    assert charts.news(["a", "gone"], View(), seen)["redraw"] == ["firing_rate_3"]
