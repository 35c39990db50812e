"""The start: the page comes first, what answers behind it next, and long scripts when they are needed."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.server import app
from darkit.dashboard.server.scripts import ASSETS, GRID_SCRIPT, own_script, own_style
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import make_run

Open = Callable[..., Page]


def ask(one: Served, method: str, path: str, body: object = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=60)
    headers = {"Content-Type": "application/json", "Origin": one.address} if method == "POST" else {}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_page_and_its_scripts_are_served_while_the_application_is_built(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    build = app.build

    def late(*arguments: Any) -> app.Built:
        assert go_on.wait(60)
        return build(*arguments)

    monkeypatch.setattr(app, "build", late)
    answers: list[tuple[int, str]] = []
    with served(home / "base") as one:
        asking = threading.Thread(target=lambda: answers.append(ask(one, "POST", "/api/runs", {})))
        asking.start()
        status, page = ask(one, "GET", "/")
        assert status == 200
        script = page.split('<script src="', 1)[1].split('"', 1)[0]
        assert ask(one, "GET", script.removeprefix("."))[0] == 200  # relative to the page
        assert not answers
        go_on.set()
        asking.join(60)
    assert answers[0][0] == 200
    assert json.loads(answers[0][1])["rows"] == []


def test_requests_fail_if_the_application_cannot_be_built(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> app.Built:
        raise RuntimeError("no room")

    monkeypatch.setattr(app, "build", broken)
    with served(home / "base") as one:
        assert ask(one, "GET", "/")[0] == 200
        assert ask(one, "POST", "/api/runs", {})[0] == 500


def test_a_page_begins_with_the_long_script_that_it_needs_first(home: Path) -> None:
    with served(home / "base") as one:
        of_run, of_table = ask(one, "GET", "/run/one")[1], ask(one, "GET", "/")[1]
        script = of_table.split('id="grid-script" src=".', 1)[1].split('"', 1)[0]
        assert ask(one, "GET", script)[1].endswith(GRID_SCRIPT.read_text())
    assert '<meta name="grid" content="/scripts/ag-grid-' in of_run
    assert 'id="plotly-script"' in of_run
    assert 'id="grid-script"' not in of_run
    assert 'id="plotly-script"' not in of_table


def test_the_pages_own_files_are_one_script_and_one_style_that_a_browser_keeps(home: Path) -> None:
    with served(home / "base") as one:
        page = ask(one, "GET", "/")[1]
        for mark, own, folder in (('src=".', own_script(), "*.js"), ('rel="stylesheet" href=".', own_style(), "*.css")):
            assert page.count(f"{mark}{own.address}") == 1
            assert page.count(f"{mark}/assets/") == 0
            status, content = ask(one, "GET", own.address)
            assert status == 200
            files = sorted(ASSETS.glob(folder))
            assert len(files) > 1
            assert all(file.read_text() in content for file in files)
            assert ask(one, "GET", own.address.replace("darkit-", "darkit-0"))[0] == 404


def test_controls_and_what_is_below_the_charts_are_made_after_them(dashboard: Served, open_page: Open) -> None:
    for name in ("one", "two"):
        make_run(dashboard.root, name, 50)
    page = open_page(dashboard.address + "/run/one")
    note = """() => {
        window.order = [];
        new MutationObserver(() => {
            const places = {chart: ".plot[data-drawn]", controls: "#smooth", below: "#values-box"};
            for (const [name, place] of Object.entries(places))
                if (document.querySelector(place) && !order.includes(name)) order.push(name);
        }).observe(document, {subtree: true, childList: true, attributes: true});
    }"""
    page.add_init_script(f"({note})()")
    page.goto(dashboard.address + "/compare?run=one&run=two&smooth=0.5")
    expect(page.locator("#values-box tr")).not_to_have_count(0)
    expect(page.locator("#smooth-value")).to_have_text("0.50")
    assert page.evaluate("order[0]") == "chart"
    assert sorted(page.evaluate("order")) == ["below", "chart", "controls"]


def test_the_table_opens_from_a_runs_page_at_once(dashboard: Served, open_page: Open) -> None:
    make_run(dashboard.root, "one", 50)
    page = open_page(dashboard.address + "/run/one")
    page.locator("a.brand").click()
    expect(page.locator(".ag-row .run-link")).to_have_text("one")


def test_dash_is_imported_without_its_support_for_notebooks_and_without_flask() -> None:
    code = """
import sys
from darkit.dashboard.server.lean import import_dash
import_dash()
import dash
from darkit.dashboard.server.dash_app import make_dash
make_dash()
assert not dash._jupyter._dep_installed
assert not {"IPython", "flask"} & set(sys.modules)
import flask, IPython
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unused_component_is_created_when_it_is_accessed() -> None:
    assert dmc.Badge("new").to_plotly_json()["type"] == "Badge"
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = dmc.Nonsense
