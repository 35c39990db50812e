"""A metric against config keys: points of one key, parallel coordinates with logarithmic axes and brushes."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from darkit.dashboard.charts.parallel import parallel_figure
from darkit.dashboard.charts.scatter import first_key, scatter_figure
from darkit.runs import files
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run, row
from tests.dashboard.screen import drawn

Open = Callable[..., Page]
RATES = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
TWO = (("a", 0.1), ("b", 0.01))


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


def test_the_first_key_has_the_most_numbers_and_is_no_seed() -> None:
    configs = [{"trainer.max_step": 100 * (n // 3), "trainer.seed": n, "act": f"a{n}", "on": n > 2} for n in range(6)]
    keys = list(configs[0])
    assert first_key(configs, keys) == "trainer.max_step"
    narrow = [{**config, "width": n // 2, "model.lr": n // 2 / 10} for n, config in enumerate(configs)]
    assert first_key(narrow, [*keys, "width", "model.lr"]) == "model.lr"
    assert first_key(narrow, [*keys, "width"]) == "width"
    assert first_key(configs, ["trainer.seed", "act"]) == "act"
    assert first_key(configs, ["trainer.seed"]) == "trainer.seed"


def test_the_points_are_first_those_of_the_learning_rate(dashboard: Served, open_page: Open) -> None:
    for place, rate in enumerate(RATES[:3]):
        config = {"steps": [100, 100, 200][place]}
        make_run(dashboard.root, f"run-{place}", 60, seed=place, lr=rate, config=config)
    page = open_page(f"{dashboard.address}/compare?run=run-0&run=run-1&run=run-2")
    page.locator("#scatter").scroll_into_view_if_needed()
    expect(page.locator("#scatter-key")).to_have_value("trainer.lr")
    expect(page.locator("#scatter[data-drawn]")).to_be_attached()
    assert page.evaluate("document.getElementById('scatter').data.map((one) => one.x[0])") == list(RATES[:3])


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


def test_what_is_said_of_a_run_has_no_digits_of_rounding_and_every_digit_of_a_seed() -> None:
    rows = {"a": [0.1 + 0.2, 1234567891, "gelu", 0.00031234567890123], "b": [None, 1, "relu", None]}
    figure = parallel_figure(["lr", "seed", "act", "loss"], rows, {"a": 0, "b": 1}, False)
    said = [trace["text"] for trace in figure["data"]]
    assert said[0] == ["lr: 0.3", "seed: 1234567891", "act: gelu", "loss: 3.1235e-4"]
    assert said[1] == ["lr: –", "seed: 1", "act: relu", "loss: –"]


def test_the_values_of_runs_are_drawn_anew_while_these_train(dashboard: Served, open_page: Open) -> None:
    folders = [make_run(dashboard.root, name, 60, lr=lr, state="running", max_step=900) for name, lr in TWO]
    page = open_page(f"{dashboard.address}/compare?run=a&run=b")
    drawn(page, 2)
    plot = page.locator("#scatter[data-drawn]")
    plot.scroll_into_view_if_needed()
    lowest = "() => Math.min(...document.getElementById('scatter').data.map((one) => one.y[0]))"
    assert page.evaluate(lowest) > 0.1
    for step in (100, 150):
        for folder in folders:
            with (folder / files.LOG).open("a") as log:
                log.write(row(step, 0.001) + "\n")
    page.wait_for_function(f"() => ({lowest})() === 0.001")


def test_the_last_choice_is_drawn_whichever_answer_comes_first(dashboard: Served, open_page: Open) -> None:
    for name, lr in TWO:
        make_run(dashboard.root, name, 60, lr=lr)
    page = open_page(f"{dashboard.address}/compare?run=a&run=b")
    drawn(page, 2)
    plot = page.locator("#scatter[data-drawn]")
    plot.scroll_into_view_if_needed()
    held: list[Route] = []
    page.route("**/api/scatter", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/api/scatter"):
        page.get_by_label("Log x").click(force=True)
    page.get_by_label("Log y").click(force=True)
    page.wait_for_function("() => document.getElementById('scatter').layout.yaxis.type === 'log'")
    with page.expect_response("**/api/scatter"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert page.evaluate("document.getElementById('scatter').layout.yaxis.type") == "log"
