"""No request, however odd, is a failure of the server: paths, methods, encodings, bodies and values of callbacks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.dashboard.server.app import build, create_app
from darkit.dashboard.server.dash_app import CheckedCallbacks, callback_problem
from tests.dashboard.parts import finish, make_run

SUITES = "/_dash-component-suites/"
PATHS = [
    *(
        SUITES + rest
        for rest in ("", "nothing/x.js", "dash", "dash/", "dash/../x", "os/path.py", "\0/x", "dash/\udcff")
    ),
    SUITES + "dash/dash-renderer/build/dash_renderer.min.js.map",
    SUITES + "plotly/package_data/nothing.js",
    SUITES + "dash/a.v1m2.js",
    "/assets/",
    "/assets/\0",
    "/assets/../x",
    "/assets/" + "a" * 5000,
    "/plotly-x",
    "/_dash-layout",
    "/_dash-update-component",
    "/_dash-nothing",
    "/api/runs",
    "/api/nothing",
    "/run/",
    "/run/\udcff",
    "/run/a/b/c",
    "//",
    "",
    "*",
    "/\u2028",
]
POSTS = ["runs", "charts", "news", "parallel", "scatter", "csv", "page", "predict", "shutdown"]
POSTS += ["media", "medium", "distribution", "console", "colour", "views", "events", "notes", "homes", "bundle"]
ODD = [
    None,
    5,
    1e308,
    True,
    "",
    "\0",
    "\ud800",
    "x" * 5000,
    [],
    [None],
    ["\ud800"],
    {},
    {"a": 1},
    [["one"]],
    "http://[",
]

Ask = Callable[..., int]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Ask the application in this process, as the server would; return the status."""
    root = tmp_path_factory.mktemp("home") / "base"
    make_run(root, "one", 30)
    app = create_app(root)

    async def answered(method: str, path: str, body: bytes, query: bytes) -> int:
        headers = [(b"host", b"localhost")]
        if method == "POST":
            headers += [(b"origin", b"http://localhost"), (b"content-type", b"application/json")]
            headers += [(b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogateescape"),
            "root_path": "",
            "query_string": query,
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in sent)
        if content.startswith(b"{") and method == "POST":  # half a character, at which orjson fails where it is there
            json.dumps(json.loads(content), ensure_ascii=False).encode()
        return int(sent[0]["status"])

    def once(method: str, path: str, body: object = None, query: bytes = b"") -> int:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        coroutine: Awaitable[int] = answered(method, path, data, query)
        return finish(coroutine)

    return once


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "odd"])
def test_an_odd_path_is_not_a_server_error(ask: Ask, method: str) -> None:
    for path in PATHS:
        assert ask(method, path, {}) < 500, path


def test_existing_scripts_are_served_and_missing_ones_are_not_found(ask: Ask) -> None:
    for path in PATHS:
        if path.startswith(SUITES) and "min.js" not in path:
            assert ask("GET", path) == 404, path
    assert ask("GET", SUITES + "dash_mantine_components/dash_mantine_components.js") in (200, 404)


@pytest.mark.parametrize(
    "query", [b"\xff\xfe", b"%ff=%00", b"run=%00&run=../..", b"&&&==", b"axis=\xc3\x28", b"a" * 9999]
)
def test_an_odd_query_is_not_a_server_error(ask: Ask, query: bytes) -> None:
    for path in ("/", "/compare", "/run/one", "/_dash-layout", "/assets/app.js"):
        assert ask("GET", path, query=query) < 500


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["one", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    [
        *("runs", "view", "charts", "cursors", "keys", "metric", "chart", "since", "columns", "key", "name"),
        *("checkpoint", "run", "file", "after", "before", "colour", "flipped", "address", "query", "offset"),
    ]
)


@settings(max_examples=25)
@given(st.dictionaries(fields, values, max_size=5), st.sampled_from(POSTS))
def test_an_odd_body_is_not_a_server_error(ask: Ask, body: dict[str, object], post: str) -> None:
    assert ask("POST", f"/api/{post}", body) < 500
    assert ask("POST", "/_dash-update-component", {**body, "output": body.get("name")}) == 400


def callbacks(root: Path) -> dict[str, Any]:
    """Return the callbacks that the server answers."""
    built = build(root, lambda key: False)
    assert isinstance(built.app, CheckedCallbacks)
    return {output: one for output, one in built.app.app.callback_map.items() if "callback" in one}


def test_an_odd_value_of_a_callback_is_not_a_server_error(ask: Ask, tmp_path: Path) -> None:
    usual = {"n_clicks": 1, "data-language": "en", "href": "http://localhost/run/one", "value": "one"}
    special = {"language": "en", "selection": ["one"], "changed": {"name": "one"}, "notes-tags": [], "own-tags": []}
    every = callbacks(tmp_path / "base")
    assert len(every) > 8
    for output, one in every.items():
        parts = [part.rpartition(".") for part in output.strip(".").split("...")]
        named = [{"id": part[0], "property": part[2]} for part in parts]
        items = [(group, item) for group in ("inputs", "state") for item in one[group]]
        for odd in range(len(items)):
            for value in ODD:
                body: dict[str, Any] = {
                    "output": output,
                    "outputs": named if output.startswith("..") else named[0],
                    "changedPropIds": [f"{one['inputs'][0]['id']}.{one['inputs'][0]['property']}"],
                    "inputs": [],
                    "state": [],
                }
                for number, (group, item) in enumerate(items):
                    plain = special.get(item["id"], usual.get(item["property"]))
                    body[group].append({**item, "value": value if number == odd else plain})
                assert ask("POST", "/_dash-update-component", body) < 500, (output, items[odd], value)


def test_a_call_that_no_page_makes_is_refused_in_one_sentence(tmp_path: Path) -> None:
    every = callbacks(tmp_path / "base")
    (wanted,) = [(output, one) for output, one in every.items() if output == "page.children"]
    output, one = wanted
    inputs = [{**item, "value": None} for item in one["inputs"]]
    sound = {"output": output, "outputs": {"id": "page", "property": "children"}, "inputs": inputs, "state": []}
    assert callback_problem(every, sound) == ""
    for change in (
        {"output": "x"},
        {"output": None},
        {"outputs": []},
        {"outputs": [{"id": "page"}]},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": inputs[:1]},
        {"inputs": [*inputs, inputs[0]]},
        {"state": inputs},
        {"changedPropIds": 5},
        {"changedPropIds": [5]},
    ):
        problem = callback_problem(every, sound | change)
        assert problem.endswith("."), change
