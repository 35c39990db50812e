"""The dashboard as an application: made for one home, with nothing kept outside of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote

from dash import Dash
from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from darkit.dashboard import plotly
from darkit.dashboard.api import add_routes
from darkit.dashboard.cache import DEFAULT_BOUND, LogCache
from darkit.dashboard.callbacks import add_callbacks
from darkit.dashboard.charts import Charts
from darkit.dashboard.layout.shell import frame
from darkit.dashboard.library import Library
from darkit.dashboard.predict import Prompts
from darkit.dashboard.security import LOOPBACK, Guard, content_policy, is_page
from darkit.dashboard.views import MOST_RUNS
from darkit.errors import DarkitError
from darkit.runs.names import run_path

_ASSETS = Path(__file__).parent / "assets"
_INDEX = """<!DOCTYPE html>
<html>
<head>
{%metas%}
<meta name="color-scheme" content="light dark">
<title>{%title%}</title>
<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
<meta name="plotly" content="PLOTLY">
<script src="/assets/early.js"></script>
{%css%}
</head>
<body>
{%app_entry%}
<footer>
{%config%}
{%scripts%}
{%renderer%}
</footer>
</body>
</html>"""


def create_app(
    root: Path,
    *,
    hosts: frozenset[str] = frozenset(LOOPBACK),
    token: str | None = None,
    stop: Callable[[str], bool] = lambda key: False,
    bound: int = DEFAULT_BOUND,
) -> ASGIApp:
    """Makes the dashboard.

    Args:
        root: Where the runs are, the ``base`` folder of a home.
        hosts: The host names under which it may be asked.
        token: What a reader must show once, or None where only this machine can reach it.
        stop: Ends the server if the key it is given is the right one.
        bound: How many bytes of logs to keep in memory at most.
    """
    library = Library(root, LogCache(bound))
    charts = Charts(library)
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    with _clean_environment():
        app = Dash(
            "darkit.dashboard",
            server=server,
            backend="fastapi",
            assets_folder=str(_ASSETS),
            pages_folder="",
            use_pages=False,
            routes_pathname_prefix="/",
            requests_pathname_prefix="/",
            compress=False,
            eager_loading=False,
            include_assets_files=True,
            serve_locally=True,
            suppress_callback_exceptions=True,
            enable_mcp=False,
            update_title="",
            title="darkit",
            index_string=_INDEX.replace("PLOTLY", plotly.ADDRESS),
            assets_ignore="early",
            add_log_handler=False,
        )
        app.backend.websocket_capability = False  # the page need not load what nothing here speaks
        app.layout = frame
        add_callbacks(app, library, charts)
        hashes = app.csp_hashes()
    add_routes(server, library, charts, Prompts(root.parent), stop)

    @server.get(plotly.ADDRESS)
    async def plotly_script() -> FileResponse:
        cached = {"cache-control": "public, max-age=31536000, immutable"}
        return FileResponse(plotly.SCRIPT, media_type="text/javascript", headers=cached)

    return Guard(_Warm(server, library), hosts, content_policy(hashes), token)


class _Warm:
    """Begins to read the logs of a page while the browser still loads its scripts."""

    def __init__(self, app: ASGIApp, library: Library) -> None:
        self._app = app
        self._library = library

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = scope.get("darkit_page")
        if page is not None and is_page(page):
            query = scope["query_string"].decode("latin-1")
            threading.Thread(target=warm, args=(self._library, page, query), daemon=True).start()
        await self._app(scope, receive, send)


def warm(library: Library, page: str, query: str) -> None:
    """Reads what a page will ask for."""
    if page == "/":
        library.entries()
        return
    names = [unquote(page.removeprefix("/run/"))] if page != "/compare" else parse_qs(query).get("run", [])[:MOST_RUNS]
    for name in names:
        try:
            run_path(library.root, name)
        except DarkitError:
            return
    found = []
    for name in names:
        try:
            found.append(library.facts(name))
        except DarkitError:
            continue
    library.logs(found)


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Hides the variables by which Dash would let the environment choose debugging, paths and what it serves."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("DASH_", "_DASH_"))}
    try:
        yield
    finally:
        os.environ.update(hidden)
