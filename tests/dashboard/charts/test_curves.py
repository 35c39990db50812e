"""From columns to curves and figures: what is shown is what was logged."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.dashboard.charts.charts import points_each
from darkit.dashboard.charts.curves import Band, Curve, band_of, curve_of
from darkit.dashboard.charts.downsample import memory_of, pick, smooth
from darkit.dashboard.charts.figures import GroupBand, Line, chart_figure, inert, numbers, robust_scale
from darkit.dashboard.charts.parallel import parallel_figure
from darkit.dashboard.reading.series import usable_series
from darkit.dashboard.reading.tail import LogTail, Table
from darkit.dashboard.view import View, read_view
from darkit.runs.statistics import summarize

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200).map(np.array)


def table_of(tmp_path: Path, text: str) -> Table:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return LogTail(path).refresh()


@settings(max_examples=200, deadline=None)
@given(values, st.floats(0.01, 0.99))
def test_smoothing_is_the_debiased_moving_average(y: np.ndarray, weight: float) -> None:
    average, expected = 0.0, []
    for count, value in enumerate(y, 1):
        average = weight * average + (1 - weight) * value
        expected.append(average / (1 - weight**count))
    np.testing.assert_allclose(smooth(y, weight), expected, rtol=1e-9, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.floats(0.01, 0.99), st.floats(0.5, 20))
def test_smoothing_weighs_each_value_by_how_many_steps_ago_it_was(
    data: st.DataObject, weight: float, spacing: float
) -> None:
    steps = np.array(sorted(data.draw(st.sets(st.integers(0, 500), min_size=2, max_size=60))), dtype=float)
    y = np.array(data.draw(st.lists(st.floats(-1e3, 1e3), min_size=len(steps), max_size=len(steps))))
    expected = []
    for place in range(len(steps)):
        weights = weight ** ((steps[place] - steps[: place + 1]) / spacing)
        expected.append(float((weights * y[: place + 1]).sum() / weights.sum()))
    np.testing.assert_allclose(smooth(y, weight, steps, spacing), expected, rtol=1e-7, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(values, st.floats(0.1, 0.9))
def test_a_tail_as_long_as_the_memory_smooths_like_the_whole(y: np.ndarray, weight: float) -> None:
    y = np.tile(y, 1 + 400 // len(y))
    start = max(0, len(y) - 1 - memory_of(weight))
    assert smooth(y[start:], weight)[-1] == pytest.approx(smooth(y, weight)[-1], rel=1e-9, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 49_999), st.floats(10, 1e9), st.booleans())
def test_every_single_peak_survives_thinning(place: int, height: float, down: bool) -> None:
    y = np.sin(np.arange(50_000) * 0.01)
    y[place] = -height if down else height
    chosen = pick(np.arange(50_000.0), y, 2000)
    assert place in chosen
    assert len(chosen) <= 2000
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] == 0 or place == 0
    assert chosen[-1] == 49_999


@pytest.mark.parametrize("most", range(4, 12))
def test_the_few_points_that_a_very_long_run_grows_by_hold_its_peak_and_both_ends(most: int) -> None:
    y = np.zeros(400)
    y[137], y[138] = 9, -9
    for x in (np.arange(400.0), np.zeros(400)):
        chosen = pick(x, y, most)
        assert {0, 137, 138, 399} <= set(chosen.tolist())
        assert len(chosen) <= most


def test_many_curves_in_one_chart_have_fewer_points_each() -> None:
    assert [points_each(count) for count in (0, 1, 10, 20, 200)] == [2000, 2000, 2000, 1000, 100]


def test_a_clock_that_stands_still_or_jumps_back_is_thinned_all_the_same() -> None:
    x = np.concatenate([np.arange(5000.0), np.arange(3000.0), np.zeros(5000)])
    chosen = pick(x, np.cos(x), 500)
    assert len(chosen) <= 500


def test_missing_values_are_skipped_and_non_finite_ones_are_kept_apart(tmp_path: Path) -> None:
    table = table_of(tmp_path, "step,loss\n1,0.5\n2,\n3,NaN\n4,inf\n5,-inf\n,7\n6,0.25\n")
    curve = curve_of(table, ["step", "loss"], View())
    assert curve.x.tolist() == [1, 6]
    assert curve.y.tolist() == [0.5, 0.25]
    assert curve.odd_x.tolist() == [3, 4, 5]
    assert np.isnan(curve.odd_y[0])
    assert curve.odd_y[1:].tolist() == [np.inf, -np.inf]


def test_x_follows_the_view(tmp_path: Path) -> None:
    table = table_of(tmp_path, "step,epoch,time,tokens,loss\n10,0,100,5,1\n20,1,102.5,9,2\n")
    columns = ["tokens", "loss"]
    assert curve_of(table, columns, View()).x.tolist() == [5, 9]
    assert curve_of(table, columns, View(axis="epoch")).x.tolist() == [0, 1]
    assert curve_of(table, columns, View(axis="relative")).x.tolist() == [0, 2.5]
    assert curve_of(table, columns, View(axis="wall", offset=60)).x.tolist() == [3_700_000, 3_702_500]


def test_the_clock_of_a_run_is_that_of_its_zone_when_it_started(tmp_path: Path) -> None:
    summer, winter = (datetime(2026, month, day, tzinfo=UTC).timestamp() for month, day in ((7, 1), (12, 1)))
    ends = datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC).timestamp()  # of summer time in Europe
    for name, start, hours in (("summer", summer, 2), ("winter", winter, 1), ("both", ends, 2)):
        (tmp_path / name).mkdir()
        table = table_of(tmp_path / name, f"step,time,loss\n1,{start!r},1\n2,{start + 3600!r},2\n")
        shown = curve_of(table, ["step", "loss"], View(axis="wall", offset=60, zone="Europe/Berlin"))
        assert (shown.x / 1000 - 3600 * hours).tolist() == [start, start + 3600]
        (later,) = curve_of(table, ["step", "loss"], View(axis="wall", zone="Europe/Berlin"), first=1).x
        assert later == shown.x[1]
    odd = table_of(tmp_path, "step,time,loss\n1,1e300,1\n")
    assert curve_of(odd, ["step", "loss"], View(axis="wall", offset=60, zone="Europe/Berlin")).x.tolist() == [1e303]


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Etc/GMT+5"])
def test_a_zone_that_is_known_is_taken(zone: str) -> None:
    assert read_view({"zone": zone}).zone == zone


@pytest.mark.parametrize(
    "zone", ["", "Nowhere/Else", "America", "../../etc/passwd", "/etc/localtime", "x" * 99, 5, None]
)
def test_any_other_zone_leaves_the_offset(zone: object) -> None:
    assert read_view({"zone": zone}).zone == ""


def test_a_range_of_a_curve_reaches_its_edges(tmp_path: Path) -> None:
    curve = Curve(np.arange(100.0), np.arange(100.0), np.array([5.0, 50.0]), np.array([np.nan, np.nan]))
    part = curve.within(20, 30)
    assert part.x.tolist() == list(range(19, 32))
    assert part.odd_x.tolist() == []
    between = curve.within(20.2, 20.8)
    assert between.x.tolist() == [20, 21]


def test_series_that_are_not_well_formed_are_left_out_and_every_other_column_with_numbers_is_one(
    tmp_path: Path,
) -> None:
    table = table_of(tmp_path, "step,epoch,time,lr,b10,b9,loss,words,val_x,none,odd\n1,0,1,2,3,4,5,hello,6,,NaN\n")
    series = {"a": ["step", "loss"], "b": 5, "c": ["step"], "d": [1, 2]}
    own = {name: ["step", name] for name in ("val_x", "b9", "b10", "odd", "lr")}
    assert list(usable_series(series, table).items()) == [("a", ["step", "loss"]), *own.items()]
    assert list(usable_series({}, table)) == ["val_x", "b9", "b10", "loss", "odd", "lr"]


def test_a_group_is_mean_and_deviation_where_its_runs_are_known() -> None:
    grid = np.arange(5.0)
    empty = np.empty(0)
    first, second = Curve(grid, grid, empty, empty), Curve(grid, grid + 2, empty, empty)
    band = band_of([first, second])
    assert band.mean.tolist() == (grid + 1).tolist()
    assert band.margin.tolist() == pytest.approx([2**0.5] * 5)
    interval = summarize([0.0, 2.0]).interval
    assert interval is not None
    assert band_of([first, second], spread="ci").margin.tolist() == pytest.approx([interval[1] - 1] * 5)
    short = Curve(np.array([0.0, 2.0]), np.array([10.0, 20.0]), empty, empty)
    band = band_of([first, short])
    assert band.mean.tolist() == [5, 8, 11, 3, 4]
    assert band.margin[-1] == 0
    assert band_of([first, short], spread="ci").margin[-1] == 0


def test_outliers_leave_the_scale_and_stay_in_the_data() -> None:
    y = np.concatenate([np.linspace(0, 1, 1000), [1e6]])
    scale = robust_scale([y], log=False)
    assert scale is not None
    assert scale[1] < 2
    line = Line("a", 0, Curve(np.arange(1001.0), y, np.empty(0), np.empty(0)))
    figure = chart_figure("loss", [line], [], View(robust=True), scale)
    shown = np.frombuffer(base64.b64decode(figure["data"][0]["y"]["bdata"]))
    assert shown.max() == 1e6
    assert figure["layout"]["yaxis"]["range"][1] < 2


@pytest.mark.parametrize(("highest", "ticks"), [(1, "D2"), (3, None), (100, "D2"), (1e6, None)])
def test_a_logarithmic_axis_has_no_more_ticks_than_can_be_read(highest: float, ticks: str | None) -> None:
    line = Line("a", 0, Curve(np.arange(3.0), np.array([-1, 1, highest]), np.empty(0), np.empty(0)))
    axis = chart_figure("loss", [line], [], View(log=True))["layout"]["yaxis"]
    assert (axis["type"], axis.get("dtick")) == ("log", ticks)


def test_names_are_inert_in_figures() -> None:
    evil = "<b onclick=x>&amp;"
    line = Line(
        evil, 0, Curve(np.arange(3.0), np.arange(3.0), np.array([1.0]), np.array([np.nan])), marks=((1.0, evil),)
    )
    figure = chart_figure(evil, [line], [], View(), x_title=evil)
    shown = [figure["layout"]["xaxis"]["title"]["text"], *(trace["name"] for trace in figure["data"])]
    shown += [text for trace in figure["data"] for text in trace.get("text", [])]
    shown += [
        note["text"]
        for note in parallel_figure([evil, evil], {evil: [evil, 1.0]}, {evil: 0}, False)["layout"]["annotations"]
    ]
    assert all("<b onclick" not in text for text in shown)
    assert inert(evil) == "&lt;b onclick=x&gt;&amp;amp;"


def test_numbers_travel_exactly() -> None:
    sent = np.array([0.1, -0.0, 1e-320, 1e308])
    assert np.frombuffer(base64.b64decode(numbers(sent)["bdata"]), "<f8").tolist() == sent.tolist()


@pytest.mark.parametrize("value", [0.1, 1.7e308])
def test_equal_values_have_their_mean_and_no_deviation(value: float) -> None:
    one = Curve(np.arange(3.0), np.full(3, value), np.empty(0), np.empty(0))
    band = band_of([one] * 3)
    assert band.mean.tolist() == [value] * 3
    assert band.margin.tolist() == [0.0] * 3


@pytest.mark.parametrize("log", [False, True])
def test_a_chart_of_the_largest_numbers_is_json(log: bool) -> None:
    y = np.array([1e-320, 1.7e308] if log else [-1.7e308, 1.7e308])
    scale = robust_scale([y], log=log)
    line = Line("a", 0, Curve(np.arange(2.0), y, np.empty(0), np.empty(0)))
    wide = Band(np.arange(2.0), np.array([0.0, 1e200]), np.array([0.0, np.inf]))
    figure = chart_figure(
        "loss", [line], [GroupBand("g", 0, 2, wide), GroupBand("h", 1, 2, wide)], View(robust=True, log=log), scale
    )
    json.dumps(figure, allow_nan=False)
    even = Line("a", 0, Curve(np.arange(2.0), np.full(2, 1.7e308), np.empty(0), np.empty(0)))
    json.dumps(chart_figure("even", [even], [], View(log=log)), allow_nan=False)
