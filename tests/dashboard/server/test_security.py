"""Who may ask what: every combination of host and origin, the headers, the bounds and the token."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkit.dashboard.server import security
from darkit.dashboard.server.security import LONGEST_BODY, Guard, own_hosts
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import make_run

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("home") / "base"
    make_run(root, "one", 30)
    with served(root) as one:
        yield one


def ask(
    one: Served, method: str, path: str, headers: dict[str, str] | None = None, body: object = None
) -> tuple[int, dict[str, str], bytes]:
    """Ask as a browser on this machine would, but for the headers given; an empty one is left out."""
    host = f"127.0.0.1:{one.port}"
    sent = {
        "Host": host,
        **({"Origin": f"http://{host}", "Content-Type": "application/json"} if method == "POST" else {}),
    }
    sent.update(headers or {})
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    if method == "POST":
        sent.setdefault("Content-Length", str(len(data)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items() if value)]
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who is refused early need not be heard out
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + data)
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


HOSTS = [
    "127.0.0.1:{port}",
    "localhost:{port}",
    "[::1]:{port}",
    "localhost:9",
    "evil.example:{port}",
    "127.0.0.1.evil.example",
    "",
    "a@127.0.0.1:{port}",
    "localhost/x",
]
ORIGINS = [
    "http://{host}",
    "http://localhost:3000",
    "https://evil.example",
    "null",
    "http://127.0.0.1.evil.example:{port}",
    "file://",
]


@pytest.mark.parametrize(("host", "origin"), list(itertools.product(HOSTS, ORIGINS)))
def test_only_our_own_host_and_origin_may_ask(here: Served, host: str, origin: str) -> None:
    host = host.format(port=here.port)
    origin = origin.format(host=host, port=here.port)
    own_host = host in (f"127.0.0.1:{here.port}", f"localhost:{here.port}", f"[::1]:{here.port}", "localhost:9")
    own = own_host and origin == f"http://{host}"
    headers = {"Host": host, "Origin": origin}
    code, _, data = ask(here, "POST", "/api/runs", headers, {"since": 0})
    assert (code == 200) if own else code in (400, 403)
    assert own or b"one" not in data
    upgrade = {
        **headers,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x" * 22 + "==",
    }
    code, _, _ = ask(here, "GET", "/_dash-ws-callback", upgrade)
    assert code in (400, 403)
    code, _, _ = ask(here, "GET", "/_dash-layout", headers)
    assert (code == 200) if own else code in (400, 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/_dash-layout", "/_dash-dependencies", "/assets/app.js", "/api/runs"])
def test_a_page_from_elsewhere_may_fetch_nothing_but_a_person_may_follow_a_link(
    here: Served, site: str, path: str
) -> None:
    assert ask(here, "GET", path, {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})[0] == 403
    navigation = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(here, "GET", path, navigation)[0] == 403
    assert ask(here, "GET", "/", navigation)[0] == 200
    assert ask(here, "GET", "/", {**navigation, "Sec-Fetch-Dest": "iframe"})[0] == 403


@pytest.mark.parametrize("path", ["/", "/run/one", "/compare", "/_dash-layout", "/assets/app.js", "/nothing", "/docs"])
def test_every_answer_carries_the_headers_that_protect_the_page(here: Served, path: str) -> None:
    _, headers, _ = ask(here, "GET", path)
    policy = headers["content-security-policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in scripts
    assert "http" not in policy
    assert "default-src 'none'" in policy
    assert policy.count("frame-ancestors 'self'") == 1
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


def test_pages_of_the_frameworks_are_not_served(here: Served) -> None:
    for path in (
        "/docs",
        "/redoc",
        "/openapi.json",
        "/_mcp",
        "/../../etc/passwd",
        "/assets/../server.py",
        "/assets/%2e%2e/server.py",
    ):
        assert ask(here, "GET", path)[0] in (404, 405)


def test_bodies_are_bounded_and_must_be_json(here: Served) -> None:
    assert ask(here, "POST", "/api/runs", body=b"x" * (LONGEST_BODY + 1))[0] == 413
    assert ask(here, "POST", "/api/runs", body=b"[" * 100_000)[0] == 400
    assert ask(here, "POST", "/api/runs", body=b"{")[0] == 400
    assert ask(here, "POST", "/api/runs", body=b"[]")[0] == 400
    assert ask(here, "POST", "/api/runs", {"Content-Type": "text/plain"}, {})[0] == 415
    assert ask(here, "POST", "/api/runs", {"Origin": ""}, {})[0] == 403
    assert ask(here, "PUT", "/api/runs")[0] == 405
    chunked = {"Transfer-Encoding": "chunked", "Content-Length": ""}
    body = b"".join(b"10000\r\n" + b" " * 65536 + b"\r\n" for _ in range(17)) + b"0\r\n\r\n"
    assert ask(here, "POST", "/api/runs", chunked, body)[0] == 413


@pytest.mark.parametrize(
    "body",
    [
        {"runs": ["../../etc"], "view": {}},
        {"runs": ["/etc/passwd"], "view": {}},
        {"runs": ["a\0b"], "view": {}},
        {"runs": "one", "view": {}},
        {"runs": [1], "view": {}},
        {"runs": ["one"] * 300, "view": {}},
        {"runs": ["one"], "view": 3},
        {"runs": ["one"], "view": {"axis": "x"}},
        {"runs": ["one"], "view": {"low": "a"}},
        {"runs": ["one"], "view": {"smooth": True}},
        {"runs": ["one"], "view": {}, "charts": 5},
        {"runs": ["one"], "view": {}, "cursors": {"train_loss": {"one": [1]}}},
        {},
    ],
)
def test_nonsense_from_a_client_is_one_sentence_and_no_failure(here: Served, body: dict[str, object]) -> None:
    for path in ("/api/charts", "/api/news"):
        code, _, data = ask(here, "POST", path, body=body)
        assert code in (200, 400)
        assert b"Traceback" not in data
    assert ask(here, "POST", "/api/predict", body=body)[0] in (400, 404)


def test_a_link_in_place_of_a_run_or_of_its_files_is_not_followed(home: Path, tmp_path: Path) -> None:
    root = home / "base"
    secret = make_run(tmp_path, "secret", 20, config={"password": "hunter2"})
    folder = make_run(root, "one", 20)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(secret / "config.json")
    (root / "linked").symlink_to(secret)
    with served(root) as one:
        view = {"runs": ["linked"], "view": {}}
        _, _, data = ask(one, "POST", "/api/charts", body=view)
        assert json.loads(data).get("charts", []) == []
        code, _, data = ask(one, "POST", "/api/runs", body={"since": 0, "columns": ["model.password"]})
        assert code == 200
        assert b"hunter2" not in data
        rows = {row["name"]: row for row in json.loads(data)["rows"]}
        assert "link" in rows["one"]["problem"]
        assert rows["linked"]["state"] == "broken"
        assert not rows["linked"]["opens"]


def test_with_a_token_nothing_is_answered_before_it_was_shown(home: Path) -> None:
    root = home / "base"
    make_run(root, "one", 20)
    with served(root, TOKEN) as one:
        for path in ("/", "/assets/app.js", "/_dash-layout", "/?token=wrong", "/run/one?token="):
            assert ask(one, "GET", path)[0] == 401
        assert ask(one, "POST", "/api/runs", body={})[0] == 401
        code, headers, _ = ask(one, "GET", f"/run/one?tab=notes&token={TOKEN}")
        assert (code, headers["location"]) == (303, "./one?tab=notes")
        cookie = headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        own = {"Cookie": cookie.partition(";")[0]}
        assert ask(one, "GET", "/", own)[0] == 200
        assert ask(one, "GET", "/", {"Cookie": f'other={{"a": "b"}}; {own["Cookie"]}'})[0] == 200, (
            "whatever else is there"
        )
        assert ask(one, "POST", "/api/runs", own, {})[0] == 200
        assert ask(one, "GET", "/", {"Cookie": f"{security.COOKIE}_{one.port}=wrong"})[0] == 401


def test_two_servers_of_one_host_keep_their_readers_apart(home: Path, tmp_path: Path) -> None:
    jar = urllib.request.HTTPCookieProcessor()  # which, as a browser does, knows hosts and no ports
    browser = urllib.request.build_opener(jar, urllib.request.ProxyHandler({}))
    with served(home / "base", TOKEN) as one, served(tmp_path / "base", "another-token") as other:
        for address, token in ((one.address, TOKEN), (other.address, "another-token")):
            browser.open(f"{address}/?token={token}", timeout=60).close()
        for address in (one.address, other.address):
            with browser.open(f"{address}/", timeout=60) as page:
                assert page.status == 200


def test_the_environment_changes_neither_debugging_nor_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DASH_DEBUG": "true",
        "DASH_UI": "true",
        "DASH_HOT_RELOAD": "true",
        "DASH_URL_BASE_PATHNAME": "/x/",
        "DASH_MCP_ENABLED": "true",
        "_DASH_FASTAPI_CONFIG": '{"debug": true}',
        "HOST": "0.0.0.0",
        "PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    (home / "base").mkdir(parents=True)
    with served(home / "base") as one:
        code, _, data = ask(one, "GET", "/")
        assert code == 200
        config = json.loads(data.decode().partition('type="application/json">')[2].partition("</script>")[0])
        assert config["ui"] is False
        assert "hot_reload" not in config
        assert ask(one, "GET", "/_mcp")[0] == 404


def test_names_of_a_server_for_other_machines_include_its_own_and_no_others() -> None:
    names = own_hosts("0.0.0.0")
    assert {"127.0.0.1", "localhost"} <= names
    assert "evil.example" not in names
    assert own_hosts("127.0.0.1") == {"127.0.0.1", "localhost", "::1"}


def test_the_guard_closes_every_websocket() -> None:
    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    guard = Guard(None, frozenset({"localhost"}), "")  # type: ignore[arg-type] - never reached
    coroutine = guard({"type": "websocket"}, None, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_body_sent_byte_by_byte_times_out(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "PATIENCE", 0.2)
    host = f"127.0.0.1:{here.port}"
    with socket.create_connection(("127.0.0.1", here.port), timeout=60) as slow:
        head = f"POST /api/runs HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    assert ask(here, "POST", "/api/runs", body={})[0] == 200


def test_many_slow_clients_do_not_block_others(here: Served) -> None:
    slow = [socket.create_connection(("127.0.0.1", here.port), timeout=60) for _ in range(100)]
    for one in slow:
        one.sendall(b"POST /api/runs HTTP/1.1\r\nHost: ")
    assert ask(here, "POST", "/api/runs", body={})[0] == 200
    for one in slow:
        one.close()
