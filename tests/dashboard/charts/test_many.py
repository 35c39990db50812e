"""A page of very many charts: what is asked for and drawn before anybody scrolls, and while somebody does."""

from __future__ import annotations

import json
from collections.abc import Callable

from playwright.sync_api import Page, Request, expect

from tests.dashboard.conftest import Served
from tests.dashboard.parts import add_columns, make_run
from tests.dashboard.screen import drawn

METRICS, RUNS = 90, 8
NAMES = [f"wide-{seed}" for seed in range(RUNS)]
SCROLL = """async () => {
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const before = document.querySelectorAll('.plot[data-drawn]').length;
    let sketched = 0;
    for (let place = 0; place < 400 && !sketched; place++) {
        window.scrollBy(0, 60);
        await frame();
        sketched = document.querySelectorAll('.sketch').length;
    }
    return [before, document.querySelectorAll('.plot[data-drawn]').length, sketched];
}"""


def test_only_charts_in_view_are_asked_for_and_drawn_and_curves_alone_while_the_page_is_scrolled(
    dashboard: Served, open_page: Callable[..., Page]
) -> None:
    for seed, name in enumerate(NAMES):
        columns = {f"group{one // 30}/metric_{one}": lambda step, one=one: step % (one + 2) for one in range(METRICS)}
        add_columns(make_run(dashboard.root, name, 400, seed=seed), columns)
    page = open_page(dashboard.address + "/")
    asked: list[Request] = []
    page.on("request", lambda one: asked.append(one) if one.url.endswith("/api/charts") else None)
    query = "&".join(f"run={name}" for name in NAMES)
    page.goto(f"{dashboard.address}/compare?{query}", wait_until="commit")
    drawn(page, 2)
    expect(page.locator(".still table")).to_be_attached()  # the values, made when the browser was idle
    assert page.locator(".chart-card").count() == METRICS + 3, "too many curves for one chart: each has its own"
    first = asked[0].post_data_json
    assert first["charts"] is None
    assert first["runs"] == NAMES
    assert [one.post_data_json["charts"] is None for one in asked].count(True) == 1, "the early request was wasted"
    page.wait_for_function("() => document.querySelectorAll('.plot[data-drawn]').length >= 4")
    assert len(asked) <= 3
    assert page.locator(".plot[data-drawn]").count() <= 10
    assert page.locator("#parallel[data-drawn], #scatter[data-drawn]").count() == 0
    assert sum(len(one.response().body()) for one in asked) < 2_500_000
    assert page.evaluate("document.querySelectorAll('main *').length") < 9_000
    margins = """() => [...document.querySelectorAll('.plot[data-drawn]')].map((plot) => plot._fullLayout)
        .map(({_size: size, margin}) => [size.l - margin.l, size.b - margin.b])"""
    assert {json.dumps(one) for one in page.evaluate(margins)} == {"[0, 0]"}, "plotly drew these charts twice"
    before, meanwhile, sketched = page.evaluate(SCROLL)
    assert sketched > 0
    assert meanwhile <= before + 2
    page.wait_for_function("() => !document.querySelector('.sketch')")  # once it stands still
    page.wait_for_function(f"() => document.querySelectorAll('.plot[data-drawn]').length > {meanwhile}")
