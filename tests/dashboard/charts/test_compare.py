"""Runs beside each other: curves, zoom, groups, configs, and what one can take away."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from darkit.runs import files
from tests.dashboard.conftest import SPIKE, Served
from tests.dashboard.parts import loss_at, make_run, row
from tests.dashboard.screen import drawn, trace

Open = Callable[..., Page]


def test_a_spike_of_one_step_survives_the_thinning(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-1")
    drawn(page, 2)
    shown = trace(page, "train_loss", "mlp-1")
    assert len(shown["x"]) <= 2010
    assert max(shown["y"]) == 40.0
    assert shown["x"][shown["y"].index(40.0)] == SPIKE


def test_nan_and_infinity_are_marked_where_they_happened(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-2")
    drawn(page, 2)
    assert trace(page, "train_loss", "mlp-2", "odd")["x"] == [700, 701]
    assert not {700, 701} & set(trace(page, "train_loss", "mlp-2")["x"])


def test_zooming_in_asks_for_finer_points_in_all_charts_until_the_raw_ones_show(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1")
    drawn(page, 2)
    assert len(trace(page, "train_loss", "mlp-0")["x"]) < 3000
    with page.expect_response(lambda answer: answer.url.endswith("/api/charts")):
        page.evaluate(
            "Plotly.relayout(document.querySelector('[data-chart=train_loss] .plot'), {'xaxis.range': [1000, 1500]})"
        )
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.length < 600")
    shown = trace(page, "train_loss", "mlp-0")
    assert shown["x"] == list(range(999, 1502))
    assert shown["y"] == [loss_at(step, 6000, 0) for step in range(999, 1502)]
    assert page.evaluate("document.querySelector('[data-chart=val_loss] .plot').layout.xaxis.range") == [1000, 1500]
    query = parse_qs(urlsplit(page.url).query)
    assert (query["low"], query["high"]) == (["1000"], ["1500"])
    box = page.locator("[data-chart=val_loss] .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 80, steps=4)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.length < 200")
    page.get_by_role("button", name="Reset zoom").click()
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x[0] === 1")
    assert "low" not in page.url


def test_the_view_is_in_the_address_and_a_reload_shows_the_same(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1&run=mlp-2&run=mlp-3")
    drawn(page, 2)
    page.get_by_label("Log scale").click(force=True)
    page.locator("label", has_text="Relative").click()
    page.get_by_role("slider", name="Smoothing").press("ArrowRight")
    page.locator('.chip[data-name="mlp-1"] .chip-toggle').click()
    page.get_by_label("All keys").click(force=True)
    page.wait_for_url("**all=1**")
    query = parse_qs(urlsplit(page.url).query)
    assert {key: query[key] for key in ("log", "axis", "smooth", "hide", "all")} == {
        "log": ["1"],
        "axis": ["relative"],
        "smooth": ["0.01"],
        "hide": ["mlp-1"],
        "all": ["1"],
    }
    page.reload()
    drawn(page, 2)
    state = page.evaluate(
        """() => { const plot = document.querySelector('[data-chart=train_loss] .plot'); return {
            log: plot.layout.yaxis.type, last: Math.max(...plot.data[0].x),
            hidden: plot.data.filter((one) => one.visible === false).map((one) => one.meta.run)} }"""
    )
    assert state["log"] == "log"
    assert state["last"] == pytest.approx(59.99, abs=0.01)
    assert set(state["hidden"]) == {"mlp-1"}
    expect(page.get_by_label("All keys")).to_be_checked()


def drag(page: Page, chart: str) -> None:
    """Drag a rectangle over the middle of a chart."""
    box = page.locator(f"[data-chart={chart}] .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=4)
    page.mouse.up()


def range_of(page: Page, chart: str, axis: str) -> list[float]:
    return page.evaluate(f"document.querySelector('[data-chart={chart}] .plot').layout.{axis}.range")


def test_a_rectangle_that_is_zoomed_to_is_in_the_address_and_a_double_click_shows_the_whole_after_a_reload_too(
    runs: Served, open_page: Open
) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1")
    drawn(page, 2)
    drag(page, "train_loss")
    page.wait_for_url("**low=**")
    shown = {axis: range_of(page, "train_loss", axis) for axis in ("xaxis", "yaxis")}
    page.reload()
    drawn(page, 2)
    for axis, edges in shown.items():
        assert range_of(page, "train_loss", axis) == pytest.approx(edges)
    page.locator("[data-chart=train_loss] .nsewdrag").first.dblclick()
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x[0] === 1")
    assert not {"low", "high", "y"} & parse_qs(urlsplit(page.url).query).keys()
    expect(page.locator("#reset-zoom")).to_be_hidden()


def test_another_scale_forgets_the_stretch_of_y_that_was_zoomed_to(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&y=100,200,train_loss&y=1,x,val_loss")
    drawn(page, 2)
    assert range_of(page, "train_loss", "yaxis") == [100, 200]
    page.get_by_label("Log scale").click(force=True)
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').layout.yaxis.type === 'log'")
    assert max(range_of(page, "train_loss", "yaxis")) < 10
    assert "y=" not in page.url


def test_a_chart_that_was_made_large_is_large_again_after_a_reload(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0")
    drawn(page, 2)
    page.locator("[data-chart=val_loss]").get_by_role("button", name="Enlarge or shrink").click()
    page.reload()
    expect(page.locator(".chart-card.large")).to_have_attribute("data-chart", "val_loss")
    page.locator("[data-chart=val_loss]").get_by_role("button", name="Enlarge or shrink").click()
    assert "large" not in page.url


def test_runs_that_are_all_gone_are_named(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=once&run=upon")
    expect(page.get_by_text("No longer available: once, upon")).to_be_visible()


def test_groups_show_mean_and_deviation_and_unfold_into_single_runs(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-4&run=mlp-1&group=trainer.lr")
    drawn(page, 2)
    mean = trace(page, "val_loss", "0.1", "mean")
    expected = [sum(loss_at(int(step), 6000, seed) for seed in (0, 4)) / 2 for step in mean["x"]]
    assert mean["y"] == pytest.approx(expected)
    assert trace(page, "val_loss", "mlp-0") is None
    page.locator('.chip[data-name="0.1"] .chip-toggle').click()
    page.wait_for_function(
        """() => document.querySelector('[data-chart=val_loss] .plot').data
        .filter((one) => one.meta.kind === 'raw').length === 2"""
    )
    assert "unfold=0.1" in page.url


def test_differing_configs_are_shown_side_by_side(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1")
    grid = page.locator("#config-grid")
    grid.scroll_into_view_if_needed()
    expect(grid.locator('[col-id="key"] >> text=model.width')).to_be_visible()
    expect(grid.locator("text=model.act")).to_have_count(0)
    page.get_by_label("All keys").click(force=True)
    expect(grid.locator("text=model.act")).to_be_visible()
    best = page.locator("table.numbers .best")
    expect(best).to_have_count(2)


def test_a_charts_points_are_exported_whole_and_its_picture_as_png_and_svg(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-2&smooth=0.9", downloads=True)
    drawn(page, 2)

    def export(word: str) -> bytes:
        chart = page.locator('[data-chart="train_loss"]')
        chart.locator("summary").click()
        with page.expect_download() as coming:
            chart.get_by_role("button", name=word).click()
        return Path(coming.value.path()).read_bytes()

    table = list(csv.reader(io.StringIO(export("All points").decode())))
    assert table[0] == ["run", "step", "train_loss"]
    values = {(name, int(step)): float(loss) for name, step, loss in table[1:]}
    assert len(values) == 12_000
    assert all(values["mlp-0", step] == loss_at(step, 6000, 0) for step in range(1, 6001))
    assert values["mlp-2", 700] != values["mlp-2", 700]
    assert values["mlp-2", 701] == float("inf")
    assert export("(PNG)").startswith(b"\x89PNG")
    picture = export("(SVG)")
    assert picture.startswith(b"<svg")
    assert b"mlp-2" in picture


def test_a_comparison_is_saved_as_one_page_that_needs_no_server(runs: Served, open_page: Open, tmp_path: Path) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1", downloads=True)
    drawn(page, 2)
    charts = page.locator("[data-chart]").count()
    with page.expect_download() as coming:
        page.get_by_role("button", name="Save as HTML").click()
    saved = tmp_path / "comparison.html"
    coming.value.save_as(saved)
    page.context.set_offline(True)
    page.goto(saved.as_uri())
    page.wait_for_function(f"() => document.querySelectorAll('.chart.js-plotly-plot').length === {charts}")
    expect(page.locator("table >> text=mlp-1").first).to_be_visible()
    shown = page.evaluate("Math.max(...document.getElementById('chart-1')._fullData[1].y)")
    assert shown == 40.0


def test_last_and_best_values_follow_the_logs(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 200, state="running", max_step=400)
    make_run(dashboard.root, "two", 200, lr=1e-4)
    page = open_page(dashboard.address + "/compare?run=one&run=two")
    drawn(page, 2)
    with (folder / files.LOG).open("a") as log:
        log.write(row(201, 0.015625) + "\n")
    expect(page.locator("#values-box .best", has_text="0.015625")).to_be_visible()
    values = page.locator("#values-box")
    for order in (["one", "two"], ["two", "one"]):  # by train_loss, whose best value is now that of the first
        values.get_by_role("button", name="best @step").last.click()
        expect(values.locator(".run-name")).to_have_text(order)
    expect(values.locator("[aria-sort=descending]")).to_have_text("best @step")
    with (folder / files.LOG).open("a") as log:
        log.write(row(202, 0.0078125) + "\n")
    expect(values.locator(".best", has_text="0.0078125")).to_be_visible()
    expect(values.locator(".run-name")).to_have_text(["two", "one"])  # as before the rows came
    values.get_by_role("button", name="two").click()
    expect(values.get_by_role("button", name="two")).to_have_attribute("aria-pressed", "true")
    pale = "document.querySelector('[data-chart=train_loss] .plot').data.filter((one) => one.opacity < 0.2)"
    page.wait_for_function(f"() => {pale}.length && {pale}.every((one) => one.meta.run === 'one')")
    page.reload()
    expect(values.locator(".run-name")).to_have_text(["two", "one"])
    page.locator("label", has_text="Best run on top").click()
    expect(values.locator(".run-name")).to_have_text(["one", "two"])
    expect(values.locator(".on-top")).to_contain_text("one")
    values.get_by_role("button", name="lr", exact=True).click()
    page.reload()
    expect(values.locator(".run-name")).to_have_text(["one", "two"])
    page.locator("label", has_text="Best run on top").click()
    expect(values.locator(".run-name")).to_have_text(["two", "one"])  # 1e-4 and 0.001 are sorted as numbers


def test_more_runs_than_can_be_compared_are_said_to_be_left_out_and_the_address_may_be_long(
    dashboard: Served, open_page: Open
) -> None:
    names = [f"{index}-{'run-with-a-very-long-name-' * 3}" for index in range(230)]
    for name in names:
        make_run(dashboard.root, name.strip(), 3)
    page = open_page(dashboard.address + "/compare?" + "&".join(f"run={name}" for name in names))
    expect(page.get_by_role("heading", name="Comparison of 200 runs")).to_be_visible()
    expect(page.get_by_text("30 more are not shown")).to_be_visible()
    expect(page.locator("[data-chart=train_loss] .plot[data-drawn]")).to_have_count(1)
    expect(page.locator(".chip")).to_have_count(200)
