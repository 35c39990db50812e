"""Behind a proxy: JupyterHub's own one, and nginx that takes its path away or keeps it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.server.access import make_access
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import make_run
from tests.dashboard.screen import drawn

Open = Callable[..., Page]
PUBLIC = "hub.localhost"  # a name that browsers look for on this machine
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 64; }}
http {{
  access_log off; proxy_max_temp_file_size 0; client_body_buffer_size 1m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /stripped/ {{ proxy_pass http://127.0.0.1:{behind}/; }}
    location /kept/ {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Prefix /kept;
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, folder: Path) -> Iterator[None]:
    """Run a server until the block ends; it must listen at the port."""
    log = folder / "output"
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HOME": str(folder)}, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        running.terminate()
        running.wait(30)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("home") / "base"
    make_run(root, "one", 60)
    make_run(root, "two 2", 60)
    with served(root, access=make_access([PUBLIC])) as one:
        yield one


def walk(page: Page, base: str) -> None:
    """Visit every kind of page below an address, by links, by addresses and back."""
    row = page.locator('.ag-row[row-id="two 2"]')
    row.locator("a").click()
    drawn(page, 2)
    assert page.url == f"{base}run/two%202"
    page.reload()
    drawn(page, 2)
    page.get_by_role("tab", name="Notes").click()
    page.locator("#own-note").fill(f"through {base}")
    expect(page.locator("#own-status")).to_have_text("Saved.")
    expect(page.get_by_role("link", name="Runs")).to_have_attribute("href", f"/{base.split('/', 3)[3]}")
    page.get_by_role("link", name="Runs").click()
    expect(row.first).to_be_visible()
    assert page.url == base
    row.locator("input[type=checkbox]").check()
    page.get_by_role("button", name="Compare 1").click()
    page.wait_for_url("**/compare?*")  # the runs page has charts as well
    drawn(page, 2)
    page.go_back()
    expect(page.get_by_role("button", name="Compare 1")).to_be_enabled()
    page.goto(f"{base}compare?run=one&run=two%202")
    drawn(page, 2)
    expect(page.get_by_text("The configs of these runs are identical.")).to_be_visible()


def visit(open_page: Open, base: str) -> None:
    """Walk through the pages below an address, and close them while the proxy still answers what they ask for."""
    with closing(open_page(base).context) as context:
        walk(context.pages[0], base)


@pytest.mark.soak
def test_the_pages_work_behind_nginx_that_takes_its_path_away_or_keeps_it(
    behind: Served, open_page: Open, tmp_path: Path
) -> None:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.fail("This test needs nginx: on Debian, apt-get install nginx-light (or `make nginx`).")
    port = free_port()
    (tmp_path / "conf").write_text(NGINX.format(folder=tmp_path, port=port, behind=behind.port))
    with process([program, "-c", str(tmp_path / "conf"), "-e", str(tmp_path / "errors")], port, tmp_path):
        for path in ("stripped", "kept"):
            base = f"http://{PUBLIC}:{port}/{path}/"
            visit(open_page, base)


def test_the_pages_work_behind_jupyters_proxy(behind: Served, open_page: Open, tmp_path: Path) -> None:
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"),
        "--ServerApp.jpserver_extensions={'jupyter_server_proxy': True}",
    ]
    with process(command, port, tmp_path):
        base = f"http://127.0.0.1:{port}/proxy/{behind.port}/"
        visit(open_page, base)


def test_without_its_name_a_public_host_is_refused_and_so_is_a_foreign_page(behind: Served) -> None:
    def ask(*headers: str) -> int:
        command = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            *(part for h in headers for part in ("-H", h)),
        ]
        return int(subprocess.run([*command, behind.address + "/"], capture_output=True, text=True, check=True).stdout)

    assert ask(f"Host: {PUBLIC}") == 200
    assert ask("Host: other.localhost") == 400
    assert ask(f"Host: {PUBLIC}", "Origin: http://other.localhost") == 403
