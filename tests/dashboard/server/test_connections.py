"""Too many connections, and such that never end: the server answers the others, and its log stays short."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkit.dashboard.charts import plotly
from darkit.dashboard.server import connections
from darkit.dashboard.server.connections import BoundedProtocol, FewLines, most_connections
from darkit.runs.child import environment, python_module
from tests.dashboard.conftest import Served, served
from tests.dashboard.server.test_serve import code_of

HALF = b"GET / HTTP/1.1\r\nHost: "


@pytest.fixture
def attacked(home: Path, tmp_path: Path) -> Iterator[tuple[int, int, Path]]:
    """The port, process id and log of a server with 256 file descriptors."""
    log = tmp_path / "log"
    limit = (256, 256)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            python_module("darkit.dashboard.server.serve", str(home), "127.0.0.1", "0"),
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment({}),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),  # as `ulimit -n 256` does
        )
    assert process.stdout is not None
    with process.stdout:
        address = process.stdout.readline().decode().strip()
    assert code_of(address) == 200
    yield int(address.rstrip("/").rpartition(":")[2]), process.pid, log
    process.terminate()
    assert process.wait(30) == -15 or process.returncode == 0


def processor_time(pid: int) -> float:
    """Seconds that a process has computed."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_four_hundred_half_open_requests_at_256_descriptors_do_not_block_others(
    attacked: tuple[int, int, Path],
) -> None:
    port, pid, log = attacked
    with contextlib.ExitStack() as opened:
        for _ in range(400):
            half = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            with contextlib.suppress(OSError):  # it was ended already
                half.sendall(HALF)
        assert code_of(f"http://127.0.0.1:{port}/") == 200
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < 256
        before, began = processor_time(pid), time.monotonic()
        assert code_of(f"http://127.0.0.1:{port}/run/one") == 200
        time.sleep(0.5)
        assert processor_time(pid) - before < 0.8 * (time.monotonic() - began) + 0.2, "it computes all the time"
    assert code_of(f"http://127.0.0.1:{port}/") == 200
    assert log.read_text() == ""


def ended(connection: socket.socket) -> bool:
    """Wait for the server to end a connection."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def impatient(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    with served(home / "base") as one:
        yield one


@pytest.mark.parametrize("begun", [b"", b"GET", HALF, b"POST /api/runs HTTP/1.1\r\nContent-Length: 10\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(impatient: Served, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as slow:
        slow.sendall(begun)
        assert ended(slow)
    assert code_of(impatient.address) == 200


def test_a_head_sent_byte_by_byte_times_out_on_a_kept_connection_too(
    impatient: Served,
) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as slow:
        slow.sendall(f"GET /assets/icon.svg HTTP/1.1\r\nHost: 127.0.0.1:{impatient.port}\r\n\r\n".encode())
        assert slow.recv(100_000).startswith(b"HTTP/1.1 200")
        slow.settimeout(0.05)
        for _ in range(200):  # ten seconds, of which half a one is granted
            with contextlib.suppress(TimeoutError):
                if ended(slow):
                    return
            with contextlib.suppress(OSError):
                slow.sendall(b"G")
    pytest.fail("it was waited for")


def test_an_answer_that_is_not_read_is_abandoned(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.5)
    lost, end = threading.Event(), BoundedProtocol.connection_lost
    monkeypatch.setattr(BoundedProtocol, "connection_lost", lambda *given: (end(*given), lost.set()))
    with served(home / "base") as one, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect(("127.0.0.1", one.port))
        for _ in range(40):  # more than the system keeps for a reader
            slow.sendall(f"GET {plotly.ADDRESS} HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\n\r\n".encode())
        assert lost.wait(60)  # though nothing was taken
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while block := slow.recv(2**20):
                received += len(block)
        assert received < 40 * plotly.SCRIPT.stat().st_size


def test_descriptors_suffice_for_every_connection_and_all_other_files() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 8 <= most_connections() <= connections.MOST_CONNECTIONS
    assert limit == resource.RLIM_INFINITY or most_connections() < limit


def test_a_log_has_a_few_lines_a_minute_and_says_how_many_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("darkit.dashboard.server.connections.time.monotonic", lambda: now)
    few = FewLines()

    def let() -> list[str]:
        records = [logging.LogRecord("x", logging.ERROR, "x", 1, "100 %% of %s", ("it",), None) for _ in range(500)]
        return [record.getMessage() for record in records if few.filter(record)]

    assert let() == ["100 % of it"] * 10
    now += 61
    assert let() == ["[490 errors were not logged before this one] 100 % of it", *["100 % of it"] * 9]
