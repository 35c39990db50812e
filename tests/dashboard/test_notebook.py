"""The page in a cell: through jupyter-server-proxy, directly where it is allowed, and as a link elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FrameLocator, Page, expect

import darkit
from darkit.dashboard.notebook import DashboardCell
from darkit.dashboard.server import serve
from darkit.dashboard.server.access import make_access
from darkit.errors import ConfigError, RunNotFoundError
from tests.dashboard.conftest import served
from tests.dashboard.parts import make_run
from tests.dashboard.test_proxy import free_port, process

INSERT = "(html) => document.body.append(document.createRange().createContextualFragment(html))"  # as notebooks do


@pytest.fixture
def stopped(home: Path) -> Iterator[None]:
    yield
    serve.stop(home)


def show(page: Page, cell: DashboardCell) -> FrameLocator:
    page.evaluate(INSERT, cell._repr_html_())
    return page.frame_locator("iframe[title=darkit]")


def test_the_function_starts_the_server_once_and_names_the_page(
    home: Path, stopped: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_run(home / "base", "one two", 10)
    make_run(home / "base", "three", 10)
    (tmp_path / "jpserver-1.json").write_text('{"url": "http://localhost:8888/lab", "token": "t"}')
    (tmp_path / "jpserver-2.json").write_text('{"url": "http://elsewhere:8888/"}')
    (tmp_path / "jpserver-3.json").write_text("[]")
    monkeypatch.setattr("jupyter_core.paths.jupyter_runtime_dir", lambda: str(tmp_path))
    cell = darkit.dashboard("one two")
    assert cell.frames == ("http://localhost:8888", "http://127.0.0.1:8888")
    assert repr(cell) == f"The dashboard is at {cell.address}run/one%20two"
    again = darkit.dashboard(["one two", darkit.load("three")], height=300)
    assert (again.address, again.rest) == (cell.address, "compare?run=one%20two&run=three")
    (tmp_path / "jpserver-4.json").write_text('{"url": "http://localhost:9999/"}')
    assert darkit.dashboard().frames == (), "a server that runs does not allow a new one"
    with pytest.raises(RunNotFoundError):
        darkit.dashboard("four")
    other = make_run(tmp_path / "base", "three", 10)
    with pytest.raises(ConfigError, match=r"is not in .*, which the dashboard shows"):
        darkit.dashboard(["one two", darkit.load("three", root=other.parent)])
    with pytest.raises(ConfigError, match="height must be"):
        darkit.dashboard(height=0)


def test_a_cell_shows_the_page_through_jupyters_proxy(home: Path, browser_page: Page, tmp_path: Path) -> None:
    make_run(home / "base", "one", 60)
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(
            f"--port={port}",
            "--IdentityProvider.token=",
            f"--ServerApp.root_dir={tmp_path}",
            "--ServerApp.base_url=/me/",
        ),
        "--ServerApp.jpserver_extensions={'jupyter_server_proxy': True}",
    ]
    with served(home / "base") as behind, process(command, port, tmp_path):
        page = browser_page
        page.goto(f"http://127.0.0.1:{port}/me/nothing")  # a page of Jupyter's own: a notebook is another package
        page.evaluate(
            "(config) => document.body.append(Object.assign(document.createElement('script'),"
            " {id: 'jupyter-config-data', type: 'application/json', textContent: config}))",
            json.dumps({"baseUrl": "/me/"}),
        )
        frame = show(page, DashboardCell(f"{behind.address}/", (), 700, "run/one"))
        expect(frame.locator(".plot[data-drawn]").first).to_be_visible()
        expect(page.locator("a", has_text="dashboard")).to_have_attribute(
            "href", f"http://127.0.0.1:{port}/me/proxy/{behind.port}/run/one"
        )
        assert page.locator("iframe").bounding_box()["height"] == pytest.approx(702, abs=3)  # type: ignore[index]


@pytest.mark.soak
def test_without_a_proxy_the_page_is_shown_directly_where_it_is_allowed_and_else_linked(
    home: Path, browser_page: Page, tmp_path: Path
) -> None:
    make_run(home / "base", "one", 60)
    (tmp_path / "cell.html").write_text("<!doctype html><body data-base-url='/'></body>")
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with process([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], port, tmp_path):
        with served(home / "base", access=make_access(frames=[origin])) as allowed:
            browser_page.goto(f"{origin}/cell.html")
            frame = show(browser_page, DashboardCell(f"{allowed.address}/", (origin,), 700, ""))
            expect(frame.locator(".ag-row").first).to_be_visible()
        with served(home / "base") as closed:
            browser_page.goto(f"{origin}/cell.html")
            show(browser_page, DashboardCell(f"{closed.address}/", (), 700, ""))
            expect(browser_page.locator("a")).to_have_text(f"The dashboard is at {closed.address}/")
            browser_page.wait_for_timeout(500)
            assert browser_page.locator("iframe").count() == 0
            frame = show(browser_page, DashboardCell(f"{closed.address}/", (origin,), 700, ""))  # as an attacker would
            expect(browser_page.locator("iframe")).to_have_count(1)
            browser_page.wait_for_timeout(1000)
            assert frame.locator(".bar").count() == 0, "the page refuses to be a part of another one"


def test_the_token_of_a_server_stands_where_the_page_looks_for_it() -> None:
    for rest, link in (("", "?token=t"), ("run/a", "run/a?token=t"), ("compare?run=a", "compare?run=a&token=t")):
        cell = DashboardCell("http://box:8000/?token=t", (), 5, rest)
        assert repr(cell) == f"The dashboard is at http://box:8000/{link}"
        assert json.dumps({"address": "http://box:8000/"})[1:-1] in cell._repr_html_()
        assert json.dumps({"rest": link})[1:-1] in cell._repr_html_()


def test_nothing_in_an_address_leaves_the_script() -> None:
    html = DashboardCell("http://x/", (), 5, "run/</script><img src=x>")._repr_html_()
    assert html.count("</script>") == 1
    assert "<img" not in html
