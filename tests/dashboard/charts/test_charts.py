"""What the charts of a page are made of: marks, groups, and the use of the machine in units that a person reads."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.machine import measure
from darkit.dashboard.view import View
from darkit.runs import files
from darkit.runs.notes import Notes, write_notes
from tests.dashboard.parts import make_run


@pytest.fixture
def charts(home: Path) -> Charts:
    return Charts(Library(home / "base", LogCache()))


def figure(charts: Charts, names: list[str], view: View, title: str) -> dict[str, Any]:
    return json.loads(charts.draw(names, view, [title]))["figures"][title]


def traces(figure: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace["meta"]["kind"] == kind]


def decoded(values: dict[str, str]) -> list[float]:
    return np.frombuffer(base64.b64decode(values["bdata"])).tolist()


def test_a_group_marks_the_nan_of_any_of_its_runs_until_it_is_unfolded_and_the_run_has_the_mark(
    home: Path, charts: Charts
) -> None:
    for seed in range(3):
        make_run(home / "base", f"r{seed}", 100, seed=seed, losses={40 + seed: float("nan")} if seed else None)
    names = ["r0", "r1", "r2"]
    folded = figure(charts, names, View(group=("trainer.lr",)), "train_loss")
    (marks,) = traces(folded, "odd")
    assert decoded(marks["x"]) == [41, 42]
    unfolded = figure(charts, names, View(group=("trainer.lr",), unfold=("0.001",)), "train_loss")
    assert {trace["meta"]["run"]: decoded(trace["x"]) for trace in traces(unfolded, "odd")} == {"r1": [41], "r2": [42]}


def test_a_tag_that_is_written_meanwhile_makes_other_groups(home: Path, charts: Charts) -> None:
    folders = [make_run(home / "base", name, 20) for name in ("a", "b")]

    def groups() -> list[str]:
        return [group["label"] for group in json.loads(charts.draw(["a", "b"], View(group=("tags",)), None))["groups"]]

    assert groups() == ["–"]
    write_notes(folders[0], Notes(("fast",)))
    assert sorted(groups()) == ["fast", "–"]


def test_a_band_below_zero_ends_a_decade_below_the_means_on_a_logarithmic_axis(home: Path, charts: Charts) -> None:
    for name, loss in {"a": 0.001, "b": 2.0}.items():
        make_run(home / "base", name, 20, losses=dict.fromkeys(range(1, 21), loss))
    for log, lowest in ((False, 1.0005 - 2**0.5 * 0.9995), (True, 0.10005)):
        shown = figure(charts, ["a", "b"], View(group=("trainer.lr",), log=log), "train_loss")
        assert min(decoded(traces(shown, "band")[0]["y"])) == pytest.approx(lowest)


def test_very_many_checkpoints_are_some_marks_and_a_zoom_shows_those_between(home: Path, charts: Charts) -> None:
    folder = make_run(home / "base", "one", 2000)
    for step in range(5, 2001, 5):
        (folder / f"iter-{step}-ckpt.pth").write_bytes(b"")
    (marks,) = traces(figure(charts, ["one"], View(), "train_loss"), "checkpoint")
    assert len(marks["x"]) <= 60
    assert (marks["x"][0], marks["x"][-1]) == (5, 2000)
    (marks,) = traces(figure(charts, ["one"], View(low=100, high=200), "train_loss"), "checkpoint")
    assert marks["x"] == list(range(100, 201, 5))


def test_a_series_without_a_value_says_so_and_has_no_numbers_on_its_axis(home: Path, charts: Charts) -> None:
    make_run(home / "base", "one", 20)
    shown = figure(charts, ["one"], View(), "val_loss")
    assert shown["layout"]["annotations"][0]["text"] == "No values yet"
    assert shown["layout"]["yaxis"]["visible"] is False
    assert "annotations" not in figure(charts, ["one"], View(), "train_loss")["layout"]


def test_the_use_of_the_machine_has_names_and_units(home: Path, charts: Charts) -> None:
    folder = make_run(home / "base", "one", 20)
    columns = "time,step,cpu,memory,disk_free,gpu0_memory,gpu0_use,other"
    (folder / files.SYSTEM_LOG).write_text(f"{columns}\n1,1,50,20,9e11,4e9,99,7\n11,2,60,21,8e11,5e9,98,8\n")
    answer = json.loads(charts.draw(["one"], View(source="system", axis="wall", language="zh"), None))
    titles = {chart["id"]: chart["title"] for chart in answer["charts"]}
    assert titles["disk_free"] == "可用磁盘空间（GB）"
    assert titles["other"] == "other"
    shown = figure(charts, ["one"], View(source="system", axis="wall"), "disk_free")
    assert decoded(shown["data"][0]["y"]) == [900, 800]
    assert figure(charts, ["one"], View(source="system", axis="wall"), "cpu")["layout"]["yaxis"]["range"][0] == 0
    news = charts.news(["one"], View(source="system", axis="wall"), {"disk_free": {"one": [0, 1]}})
    assert decoded(news["append"]["disk_free"][0][3]) == [800]


def test_new_points_are_as_dense_as_the_others_and_keep_their_peak(home: Path, charts: Charts) -> None:
    make_run(home / "base", "long", 20_000, losses={19_700: 99.0})
    of_all = decoded(figure(charts, ["long"], View(), "train_loss")["data"][0]["x"])
    (piece,) = charts.news(["long"], View(), {"train_loss": {"long": [0, 19_000]}})["append"]["train_loss"]
    assert len(decoded(piece[2])) <= len(of_all) / 20 + 2
    assert max(decoded(piece[3])) == 99


def test_a_single_sample_of_the_machine_stands_in_its_minute(home: Path, charts: Charts) -> None:
    folder = make_run(home / "base", "one", 20)
    (folder / files.SYSTEM_LOG).write_text("time,step,cpu\n100,1,50\n")
    low, high = figure(charts, ["one"], View(source="system", axis="wall"), "cpu")["layout"]["xaxis"]["range"]
    assert high - low == 60_000


@pytest.mark.parametrize(
    ("column", "title"),
    [
        ("gpu3_power", "GPU 3 power (W)"),
        ("gpu_power", "gpu_power"),
        ("gpu0_cpu", "gpu0_cpu"),
        ("cpu", "CPU (% of all cores)"),
    ],
)
def test_only_columns_that_are_known_are_called_otherwise(column: str, title: str) -> None:
    assert measure(column, "en").title == title
