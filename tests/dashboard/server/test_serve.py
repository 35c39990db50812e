"""The commands that start and stop the server: one sentence for each thing that can be wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkit.dashboard.server.place import Place, ServerLock
from darkit.runs import files
from tests.dashboard.parts import make_run

COMMAND = [sys.executable, "-m", "darkit.cli.main"]


def darkit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60)


@pytest.fixture
def started(home: Path) -> Iterator[str]:
    """The address of a server that runs in the background."""
    answer = darkit("start", "--daemon", "--port", "0")
    assert answer.returncode == 0, answer.stderr
    yield answer.stdout.strip()
    darkit("stop-server")


def code_of(address: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_server_in_the_background_prints_its_address_and_nothing_else(home: Path) -> None:
    answer = darkit("start", "--daemon", "--port", "0")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", answer.stdout)
    assert answer.stderr == ""
    assert code_of(answer.stdout.strip()) == 200
    again = darkit("start", "--daemon", "--port", "0")
    assert again.stdout == answer.stdout, "a home has one server"
    assert darkit("start").stdout == answer.stdout
    stopped = darkit("stop-server")
    assert stopped.returncode == 0
    assert answer.stdout.strip() in stopped.stdout
    with pytest.raises(OSError, match=r"refused"):
        code_of(answer.stdout.strip())
    nothing = darkit("stop-server")
    assert nothing.returncode == 1
    assert "No dashboard" in nothing.stdout


def test_to_stop_where_nothing_ever_was_makes_nothing(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    assert darkit("stop-server").returncode == 1
    assert list(home.iterdir()) == []


def test_where_a_killed_server_was_is_forgotten_when_the_next_one_begins(home: Path) -> None:
    place = home / ".dashboard" / "place.json"
    place.parent.mkdir(parents=True)
    files.write_json(place, {"address": "http://127.0.0.1:1/", "key": "old"})
    with ServerLock(home):
        assert not place.exists()


def test_the_key_that_ends_the_server_is_for_the_owner_only(started: str, home: Path) -> None:
    place = home / ".dashboard" / "place.json"
    assert place.stat().st_mode & 0o077 == 0
    assert Place(**files.read_json(place)).address == started
    request = urllib.request.Request(
        started + "api/shutdown",
        b'{"key": "wrong"}',
        {"Content-Type": "application/json", "Origin": started.rstrip("/")},
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=60)
    assert code_of(started) == 200


def test_a_taken_port_is_one_sentence(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for more in ([], ["--daemon"]):
            answer = darkit("start", "--port", str(port), *more)
            assert answer.returncode == 2
            assert f"Port {port}" in answer.stderr
            assert answer.stderr.count("\n") == 1
            assert answer.stdout == ""


@pytest.mark.parametrize(
    "words", [["--host", "256.1.1.1"], ["--host", "203.0.113.7"], ["--port", "70000"], ["--port", "x"]]
)
def test_an_impossible_host_or_port_is_refused(home: Path, words: list[str]) -> None:
    answer = darkit("start", *words)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr


def test_another_host_needs_the_token_that_is_printed(home: Path) -> None:
    answer = darkit("start", "--daemon", "--port", "0", "--host", "0.0.0.0")
    try:
        address, _, token = answer.stdout.strip().partition("?token=")
        assert "0.0.0.0" not in address, "which no other machine could open"
        assert len(token) >= 32
        assert code_of(address) == 401
        assert darkit("start", "--host", "0.0.0.0").stdout == answer.stdout, "which tells the token again"
        for path in (home / ".dashboard").iterdir():
            assert token not in path.read_text() or path.stat().st_mode & 0o077 == 0
        cookies = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), urllib.request.ProxyHandler({}))
        with cookies.open(f"{address}?token={token}", timeout=60) as page:
            assert page.status == 200
            assert "token" not in page.url
    finally:
        stopped = darkit("stop-server")
    assert stopped.returncode == 0


def test_the_environment_changes_neither_host_nor_port(home: Path) -> None:
    environment = {**os.environ, "HOST": "0.0.0.0", "PORT": "9", "DASH_DEBUG": "1", "UVICORN_HOST": "0.0.0.0"}
    process = subprocess.Popen(
        [*COMMAND, "start", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    assert code_of(address) == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_server_killed_at_once_leaves_the_home_free_for_the_next(home: Path) -> None:
    process = subprocess.Popen([*COMMAND, "start", "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    answer = darkit("start", "--daemon", "--port", "0")
    assert time.monotonic() < deadline + 30
    assert code_of(answer.stdout.strip()) == 200
    assert darkit("stop-server").returncode == 0


def test_serving_loads_no_torch(home: Path) -> None:
    make_run(home / "base", "one", 20)
    script = """
import sys
from pathlib import Path
from darkit.dashboard.server.app import create_app
import darkit.dashboard.server.serve, darkit.cli.start
create_app(Path(sys.argv[1]))
print(sorted({"torch", "lightning", "pytorch_lightning", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(home / "base")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
