"""A dashboard on a free port, and a real Chromium that looks at it."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from darkit.dashboard.server.access import Access
from darkit.dashboard.server.app import create_app
from darkit.dashboard.server.serve import server_of
from darkit.remote.homes import Homes
from darkit.runs import files, status
from darkit.runs.media import MediaStore
from darkit.runs.roots import Root
from tests.dashboard.parts import make_run

SPIKE = 1234  # the step at which one of the runs jumps
PATIENCE = 60_000  # milliseconds; two test processes share two cores
expect.set_options(timeout=PATIENCE)
_opened: list[tuple[BrowserContext, str]] = []  # the pages of the running test, with their addresses


@dataclass
class Served:
    """A dashboard that answers at ``address`` for the runs below ``root``."""

    root: Path
    address: str
    port: int


@contextmanager
def served(
    roots: Path | Sequence[Root], token: str | None = None, homes: Homes | None = None, access: Access | None = None
) -> Iterator[Served]:
    """Serve one root, or several, from a thread of this process."""
    server = server_of(create_app(roots, token=token, homes=homes, access=access or Access()))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    one = Served(roots if isinstance(roots, Path) else roots[0].path, f"http://127.0.0.1:{port}", port)
    yield one
    for context, address in _opened:
        if address.startswith(one.address):  # a page that asks a server which is gone reports an error
            context.close()
    server.should_exit = True
    thread.join(10)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are made by hand and run elsewhere do not beat."""
    monkeypatch.setattr(status, "SILENCE", 3600.0)


@pytest.fixture
def dashboard(home: Path) -> Iterator[Served]:
    """A dashboard of this test's own home."""
    (home / "base").mkdir(parents=True, exist_ok=True)
    with served(home / "base") as one:
        yield one


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Six runs that no test changes: two learning rates, three seeds."""
    root = tmp_path_factory.mktemp("home") / "base"
    for seed in range(6):
        losses = {SPIKE: 40.0} if seed == 1 else {700: float("nan"), 701: float("inf")} if seed == 2 else None
        make_run(root, f"mlp-{seed}", 6000, seed=seed, lr=[0.1, 0.01][seed % 2], losses=losses)
    folder = make_run(
        root,
        "broken-off",
        300,
        seed=9,
        state="crashed",
        reason="ValueError: boom",
        traceback="Traceback ...\nValueError: boom",
    )
    (folder / "iter-200-ckpt.pth").write_bytes(b"x" * 2048)
    manifest = {"size": 2048, "sha256": "ab" * 32, "step": 200, "metrics": {"val_loss": 0.5}, "run": "1"}
    files.write_json(folder / "iter-200-ckpt.json", manifest)
    (folder / "iter-300-ckpt.pth").write_bytes(b"x")
    MediaStore(folder).add("text", "story", 100, b"once upon a time", "txt", time=100)
    (folder / files.MODEL_SOURCE).write_text("class MLP:\n    pass\n")
    (folder / "system_log.csv").write_text("time,step,cpu,memory,disk_free\n1,1,50,20,900\n11,2,60,21,899\n")
    with served(root) as one:
        yield one


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("These tests need Chromium: on Debian, apt-get install chromium (or `make chromium`).")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        # data workers that another test left hold the driver's pipe open, and its end would be waited for
        for child in multiprocessing.active_children():
            with suppress(RuntimeError):  # torch raises it for a killed worker, from its handler of SIGCHLD
                child.kill()
                child.join()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages and fail the test for what no page may do: errors, dialogs, and requests to elsewhere."""
    wrong: list[str] = []

    def watch(page: Page, address: str) -> None:
        page.on("pageerror", lambda error: wrong.append(f"error: {error.stack or error}"))
        page.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda asked: _check_request(asked.url, address, wrong))

    def open_one(address: str, *, wide: bool = True, dark: bool = False, downloads: bool = False, **more: Any) -> Page:
        size = {"width": 1400, "height": 900} if wide else {"width": 390, "height": 844}
        scheme = "dark" if dark else "light"
        options = {"locale": "en-US", **more}
        context = browser.new_context(viewport=size, color_scheme=scheme, accept_downloads=downloads, **options)
        context.set_default_timeout(PATIENCE)
        _opened.append((context, address))
        page = context.new_page()
        watch(page, address)
        page.goto(address)
        return page

    yield open_one
    while _opened:
        _opened.pop()[0].close()
    assert not wrong, "\n".join(wrong)


def _check_request(url: str, address: str, wrong: list[str]) -> None:
    origin = "/".join(address.split("/")[:3])
    if not url.startswith((origin + "/", "data:", "blob:", "file:")):
        wrong.append(f"request to elsewhere: {url}")


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    """A page that may report errors: of requests that fail, or of one that is answered with 404."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-US")
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()
