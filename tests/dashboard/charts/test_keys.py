"""A metric against config keys: points of one key, parallel coordinates with logarithmic axes and brushes."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.charts.parallel import parallel_figure
from darkit.dashboard.charts.scatter import scatter_figure
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run
from tests.dashboard.screen import drawn

Open = Callable[..., Page]
RATES = (1e-4, 1e-3, 1e-2, 0.1, 1.0)


def places(figure: dict, axis: int) -> list[float | None]:
    return [trace["y"][axis] for trace in figure["data"]]


def test_an_axis_over_many_decades_is_logarithmic_and_can_be_flipped() -> None:
    rows = {str(rate): [rate, place + 1, place] for place, rate in enumerate(RATES)}
    colours = dict.fromkeys(rows, 0)
    figure = parallel_figure(["lr", "width", "loss"], rows, colours, False)
    assert figure["layout"]["meta"]["log"] == [True, False, False]
    assert places(figure, 0) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert places(figure, 1) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    labels = [note["text"] for note in figure["layout"]["annotations"] if note["x"] == 0]
    assert labels == ["<b>lr</b> · log", "1e-4", "0.001", "0.01", "0.1", "1"]
    flipped = parallel_figure(["lr", "width", "loss"], rows, colours, False, {"lr", "width", "loss"})
    assert flipped["layout"]["meta"]["log"] == [False, True, False]  # a loss of 0 has no logarithm
    assert places(flipped, 0)[1] == pytest.approx(9e-4 / 0.9999, rel=1e-3)
    assert places(parallel_figure(["lr"], {"a": [float("inf")], "b": [1.0]}, {"a": 0, "b": 0}, False), 0)[1] == 0


def test_a_run_without_the_key_or_the_metric_has_no_point_and_words_are_categories() -> None:
    values = {"a": (0.1, 2.0), "b": (None, 1.0), "c": (0.2, None), "d": (0.01, 3.0)}
    how = {"log_x": True, "log_y": True, "dark": False}
    figure = scatter_figure("lr", "loss", values, dict.fromkeys(values, 0), **how)
    assert [(trace["x"], trace["y"]) for trace in figure["data"]] == [([0.1], [2.0]), ([0.01], [3.0])]
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
    words = scatter_figure("act", "loss", {"a": ("<b>", -1.0)}, {"a": 0}, **how)
    assert words["data"][0]["x"] == ["&lt;b&gt;"]
    assert (words["layout"]["xaxis"]["type"], words["layout"]["yaxis"]["type"]) == ("category", "linear")


def test_runs_are_picked_along_an_axis_and_a_click_on_its_name_changes_its_scale(
    dashboard: Served, open_page: Open
) -> None:
    for place, rate in enumerate(RATES):
        make_run(dashboard.root, f"run-{place}", 60, seed=place, lr=rate)
    page = open_page(f"{dashboard.address}/compare?{'&'.join(f'run=run-{place}' for place in range(5))}&key=trainer.lr")
    drawn(page, 2)
    plot = page.locator("#parallel[data-drawn]")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    spot = page.evaluate(
        """() => { const {xaxis, yaxis, _size} = document.getElementById('parallel')._fullLayout;
            return [_size.l + xaxis.l2p(0), _size.t + yaxis.l2p(0.6), _size.t + yaxis.l2p(-0.03)]; }"""
    )
    page.mouse.move(box["x"] + spot[0], box["y"] + spot[1])
    page.mouse.down()
    page.mouse.move(box["x"] + spot[0], box["y"] + spot[2], steps=4)
    page.mouse.up()
    expect(page.locator("#brushed")).to_have_text("3 of 5 runs: run-0, run-1, run-2")
    expect(page.locator(".brush")).to_have_count(1)
    plot.locator(".annotation", has_text="trainer.lr").click()
    page.wait_for_function("() => document.getElementById('parallel').layout.meta.log[0] === false")
    assert parse_qs(urlsplit(page.url).query)["flip"] == ["trainer.lr"]
    page.locator("#scatter[data-drawn]").scroll_into_view_if_needed()
    page.locator("#scatter-key").click()
    page.get_by_role("option", name="trainer.lr").click()
    page.get_by_label("Log x").click(force=True)
    page.wait_for_function("() => document.getElementById('scatter').layout.xaxis.type === 'log'")
    xs = page.evaluate("() => document.getElementById('scatter').data.map((one) => one.x[0])")
    assert xs == list(RATES)
    assert parse_qs(urlsplit(page.url).query)["against"] == ["trainer.lr"]
