"""The dashboard as an application, made for one home or several.

A browser takes about as long to load the scripts of a page as this process takes to import what answers them, so both
happen at once: an empty Dash application serves the page and its scripts, which are the same for every layout, and a
thread builds the whole application. All other requests wait for it.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

from dash import html
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkit.dashboard.charts import plotly
from darkit.dashboard.server.access import Access
from darkit.dashboard.server.compression import Compressed
from darkit.dashboard.server.dash_app import COMPONENTS, is_lasting, make_dash, page_asked, root_asked, script_file
from darkit.dashboard.server.scripts import (
    GRID_ADDRESS,
    GRID_SCRIPT,
    KEPT,
    SCRIPTS,
    Joined,
    eager,
    own_script,
    own_style,
)
from darkit.dashboard.server.security import AGENTS, LOOPBACK, Guard, content_policy, is_page
from darkit.dashboard.view import read_address
from darkit.runs.roots import Root

if TYPE_CHECKING:
    from darkit.dashboard.charts.charts import Charts
    from darkit.dashboard.reading.library import Library
    from darkit.dashboard.server.webhooks import Notifier
    from darkit.remote.homes import Homes

_ASSETS = "/assets/"


def create_app(
    roots: Path | Sequence[Root],
    *,
    homes: Homes | None = None,
    hosts: frozenset[str] = frozenset(LOOPBACK),
    access: Access = Access(),  # noqa: B008 - it is frozen
    token: str | None = None,
    stop: Callable[[str], bool] = lambda key: False,
    notifier: Notifier | None = None,
) -> ASGIApp:
    """Make the dashboard of one home or of several.

    Args:
        roots: The folder of the runs, the ``base`` of a home, or several with their labels.
        homes: The homes besides the reader's own, which are only read; their roots come after the others.
        hosts: The host names that requests may use.
        access: Further names, and the path, by which a proxy reaches the server.
        token: The token that a reader must present once, or None if only this machine can connect.
        stop: Ends the server if the given key is right.
        notifier: Sends messages about the runs; whoever gives it closes it.
    """
    dash = make_dash()
    dash.layout = html.Div()
    shell: FastAPI = dash.server

    @shell.get(plotly.ADDRESS)
    def plotly_script() -> Response:
        return eager(plotly.SCRIPT)

    @shell.get(plotly.WHOLE_ADDRESS)
    async def whole_plotly_script() -> FileResponse:
        return FileResponse(plotly.WHOLE_SCRIPT, media_type="text/javascript", headers=KEPT)

    for own in (own_script(), own_style()):
        shell.get(own.address)(_own(own))

    @shell.get(GRID_ADDRESS)
    def grid_script() -> Response:
        return eager(GRID_SCRIPT)

    front = _Front(shell, lambda path: script_file(dash, path), lambda: build(roots, stop, homes, notifier))
    return Guard(Compressed(front), hosts, content_policy(dash.csp_hashes(), access.frames), token, access)


def _own(joined: Joined) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(joined.content, media_type=joined.kind, headers=KEPT)

    return answer


@dataclass(frozen=True)
class Built:
    """The whole application, and what it reads runs with."""

    app: ASGIApp
    library: Library
    charts: Charts


def build(
    roots: Path | Sequence[Root],
    stop: Callable[[str], bool],
    homes: Homes | None = None,
    notifier: Notifier | None = None,
) -> Built:
    """Import and make what answers the pages; see `create_app`."""
    from darkit.dashboard.charts.charts import Charts
    from darkit.dashboard.pages.routing import add_callbacks
    from darkit.dashboard.pages.shell import frame
    from darkit.dashboard.reading.cache import LogCache
    from darkit.dashboard.reading.events import Events
    from darkit.dashboard.reading.library import Library
    from darkit.dashboard.server.agents import agents_app
    from darkit.dashboard.server.api import add_routes
    from darkit.dashboard.server.dash_app import CheckedCallbacks
    from darkit.dashboard.server.predict import Prompts

    own = [Root(roots)] if isinstance(roots, Path) else list(roots)
    library = Library([*own, *(homes.roots if homes is not None else ())], LogCache())
    charts, events = Charts(library), Events(library)
    dash = make_dash()
    dash.layout = frame
    add_callbacks(dash, library, charts)
    add_routes(dash.server, library, charts, Prompts(), stop, events, homes)
    dash.server.mount(AGENTS, agents_app(library))
    if notifier is not None:
        notifier.start(events)
    gc.freeze()
    gc.enable()
    return Built(CheckedCallbacks(dash), library, charts)


class _Front:
    """Serve the page and its scripts at once, and everything else as soon as it is built.

    Args:
        shell: Serves the page and its scripts.
        script_file: Finds the file of a component's script by its path; None if there is no such script.
        build: Makes the rest. Called in a thread; if it fails, again for the next request.
    """

    def __init__(self, shell: ASGIApp, script_file: Callable[[str], Path | None], build: Callable[[], Built]) -> None:
        self._shell = shell
        self._script_file = script_file
        self._build = build
        self._built: Built | None = None
        self._lock = Lock()
        self._in_background(self._build_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, page = scope["path"], scope.get("darkit_page")
        answering = self._shell
        if page is not None:
            page_asked.set(page)
            root_asked.set("../" * (scope["darkit_raw_page"].count(b"/") - 1) or "./")
            if not is_page(page):
                await answering(scope, receive, _with_status(404, send))
                return
            self._in_background(lambda: read_ahead(self._build_once(), page, scope["query_string"].decode("latin-1")))
        elif path.startswith(COMPONENTS):
            file = self._script_file(path)
            if file is None:
                answering = PlainTextResponse("No such script.", 404)
            elif is_lasting(path) and scope.get("method") == "GET":
                answering = await run_in_threadpool(eager, file)
        elif not path.startswith((_ASSETS, SCRIPTS, plotly.ADDRESS, plotly.WHOLE_ADDRESS)):
            built = self._built if self._built is not None else await run_in_threadpool(self._build_once)
            answering = built.app
        await answering(scope, receive, send)

    def _build_once(self) -> Built:
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built

    @staticmethod
    def _in_background(act: Callable[[], object]) -> None:
        def run() -> None:
            with suppress(Exception):  # the request that needs it fails in the same way and reports it
                act()

        Thread(target=run, daemon=True).start()


def _with_status(status: int, send: Send) -> Send:
    async def changed(message: Message) -> None:
        await send({**message, "status": status} if message["type"] == "http.response.start" else message)

    return changed


def read_ahead(built: Built, page: str, query: str) -> None:
    """Read the logs of a page while the browser still loads its scripts."""
    path, state = read_address(f"{page}?{query}")
    if path == "/":
        built.library.entries()
    else:
        built.charts.chosen([path.removeprefix("/run/")] if path.startswith("/run/") else state["runs"], "log")
