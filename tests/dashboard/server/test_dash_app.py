"""What darkit relies on and Dash does not promise (server/dash_app.py): a failure here says that Dash has changed."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import dash
import pytest
from playwright.sync_api import Page, Request, expect

from darkit.dashboard.charts import plotly
from darkit.dashboard.server import dash_app
from darkit.dashboard.server.app import build
from darkit.dashboard.server.dash_app import COMPONENTS, CheckedCallbacks, callback_problem, make_dash, script_file
from darkit.dashboard.server.scripts import GRID_ADDRESS, GRID_SCRIPT, own_script
from tests.dashboard.conftest import Served
from tests.dashboard.screen import drawn

Open = Callable[..., Page]


@pytest.fixture
def app(tmp_path: Path) -> dash.Dash:
    built = build(tmp_path, lambda key: False)
    assert isinstance(built.app, CheckedCallbacks)
    return built.app.app


@pytest.fixture
def page(app: dash.Dash) -> str:
    """The page of the table as Dash writes it."""
    return page_of(app)


def page_of(app: dash.Dash) -> str:
    parts: list[bytes] = []

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    with ThreadPoolExecutor(1) as thread:  # this one has a loop already where a browser was driven before
        thread.submit(asyncio.run, app.server(scope, None, send)).result()
    return b"".join(parts).decode()


def test_component_scripts_are_registered_paths_below_their_address(app: dash.Dash, page: str) -> None:
    scripts = [path.partition("?")[0] for path in re.findall(r'<script src="\.([^"]+)"', page)]  # relative to the page
    assert 'src="/' not in page
    below = [path for path in scripts if path.startswith(COMPONENTS)]
    assert len(below) > 5
    assert all(script_file(app, path) for path in below)
    assert [path for path in scripts if path not in below] == [own_script().address], "which comes first"
    assert scripts[0] == own_script().address


def test_scripts_are_sent_unchanged_behind_the_hint_to_compile_all_of_them(
    app: dash.Dash, page: str, runs: Served
) -> None:
    scripts = re.findall(r'src="\.(/[^"]+)"', page)
    files = {path: script_file(app, path) for path in scripts if path.startswith(COMPONENTS)}
    files |= {GRID_ADDRESS: GRID_SCRIPT, plotly.ADDRESS: plotly.SCRIPT}
    assert len(files) > 7
    urlopen(runs.address).close()  # Dash has the scripts of a page that it has written
    for path, file in files.items():
        with urlopen(runs.address + path) as answer:
            assert file is not None
            assert answer.read() == b"//# allFunctionsCalledOnLoad\n" + file.read_bytes()
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers["content-type"].startswith("text/javascript")


def test_what_pages_use_of_dashs_own_components_is_in_the_pages_script_and_the_rest_is_left_out(page: str) -> None:
    assert not [name for name in ("polyfill@", "/dash/dcc/", "/dash_table/") if name in page]
    folder = Path(dash_app.__file__).parents[1]
    used = {name for file in folder.rglob("*.py") for name in re.findall(r"\bdcc\.(\w+)\(", file.read_text())}
    assert used == {"Location", "Store"}
    assert "window.dash_core_components = {Location, Store:" in (folder / "assets" / "dash.js").read_text()


def test_the_callback_map_describes_each_callback_by_ids_and_properties(app: dash.Dash) -> None:
    described = app.callback_map["page.children"]
    assert described["inputs"] == [{"id": "address", "property": "data"}, {"id": "language", "property": "data"}]
    assert described["state"] == []
    assert callable(described["callback"])
    assert "callback" not in app.callback_map["mounted.data"], "which runs in the browser"


def test_the_fastapi_backend_says_whether_it_speaks_over_websockets(page: str) -> None:
    fresh = dash.Dash(__name__, backend="fastapi", assets_folder="none", add_log_handler=False)
    assert fresh.backend.websocket_capability is True
    fresh.layout = dash.html.Div()
    assert '"websocket"' in page_of(fresh)
    assert '"websocket"' not in page


def test_the_environment_chooses_options_by_variables_that_begin_with_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASH_URL_BASE_PATHNAME", "/elsewhere/")
    assert dash.Dash(__name__, add_log_handler=False).config.url_base_pathname == "/elsewhere/"
    assert make_dash().config.url_base_pathname is None


def test_the_renderer_calls_callbacks_with_the_body_that_is_checked(
    app: dash.Dash, runs: Served, open_page: Open
) -> None:
    bodies: list[Any] = []

    def note(request: Request) -> None:
        if dash_app._CALLBACK in request.url:
            bodies.append(request.post_data_json)

    page = open_page(runs.address + "/")
    expect(page.locator("#grid-box[data-filled]")).to_have_count(1)  # no request of the first page is cut off
    page.on("request", note)
    page.goto(runs.address + "/compare?run=mlp-0&run=mlp-1")
    drawn(page, 2)
    assert bodies
    assert [callback_problem(app.callback_map, body) for body in bodies] == [""] * len(bodies)


@pytest.mark.parametrize(
    ("path", "first"),
    [("/", '/api/runs {"since":0'), ("/compare?run=mlp-0&run=mlp-1", '"charts":null')],
)
def test_the_renderer_takes_the_answers_that_were_asked_for_before_it_was_there(
    runs: Served, open_page: Open, path: str, first: str
) -> None:
    page = open_page(runs.address + "/run/mlp-0")
    drawn(page, 2)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.url} {request.post_data or ''}"))
    page.goto(runs.address + path)
    page.locator(".ag-row").first.wait_for(state="attached")
    pages = [one for one in asked if '"output":"page.children"' in one]
    assert [one.partition(" ")[0] for one in pages] == [f"{runs.address}/_dash-update-component"], "without its endId"
    for start in ("/_dash-layout ", "/_dash-dependencies ", first):
        assert len([one for one in asked if start in one]) == 1
    assert not [one for one in asked if "n_clicks" in one], "nobody has clicked"


def test_the_renderer_reads_the_address_again_after_its_private_event(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    expect(page.locator("#grid-box[data-filled]")).to_have_count(1)  # no request of the first page is cut off
    page.evaluate("history.pushState({}, '', '/run/mlp-0')")
    page.evaluate("window.dispatchEvent(new CustomEvent('_dashprivate_pushstate'))")
    expect(page.get_by_role("heading", name="mlp-0")).to_be_visible()


def test_pages_find_the_functions_of_dash(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    page.locator(".ag-row").first.wait_for()
    assert page.evaluate("typeof dash_clientside.set_props") == "function"
    assert page.evaluate("dash_clientside.no_update !== undefined")


def test_mantine_components_are_listed_in_a_module_that_can_stay_empty() -> None:
    assert importlib.util.find_spec("dash_mantine_components._imports_") is not None
    from darkit.dashboard.pages.mantine import dmc

    assert "Carousel" not in vars(dmc), "components that no page uses are not made"
