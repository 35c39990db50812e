"""The dashboard as an application: made for one home, with nothing kept outside of it.

It is made in two steps, because a person waits for it. The page and its scripts can be served at once; what they ask
then is answered by `darkit.dashboard.server.inside`, which is made meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from dash import html
from fastapi import FastAPI
from starlette.responses import FileResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from darkit.dashboard.charts import plotly
from darkit.dashboard.server.dash_app import make_dash, page_asked
from darkit.dashboard.server.dash_requests import SUITES, is_script
from darkit.dashboard.server.inside import Inside
from darkit.dashboard.server.security import LOOPBACK, Guard, content_policy, is_page

DEFAULT_BOUND = 2**30  # bytes
_SHELL = ("/assets/", SUITES, "/plotly-")


def create_app(
    root: Path,
    *,
    hosts: frozenset[str] = frozenset(LOOPBACK),
    token: str | None = None,
    stop: Callable[[str], bool] = lambda key: False,
    bound: int = DEFAULT_BOUND,
    made: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """Makes the dashboard.

    Args:
        root: Where the runs are, the ``base`` folder of a home.
        hosts: The host names under which it may be asked.
        token: What a reader must show once, or None where only this machine can reach it.
        stop: Ends the server if the key it is given is the right one.
        bound: How many bytes of logs to keep in memory at most.
        made: Called, from another thread, when all of it is made.
    """
    app = make_dash()
    app.layout = html.Div()  # the page is the same for every layout
    shell: FastAPI = app.server

    @shell.get(plotly.ADDRESS)
    async def plotly_script() -> FileResponse:
        cached = {"cache-control": "public, max-age=31536000, immutable"}
        return FileResponse(plotly.SCRIPT, media_type="text/javascript", headers=cached)

    inside = Inside(root, stop, bound, made)
    return Guard(
        _Front(shell, inside, lambda path: is_script(app, path)), hosts, content_policy(app.csp_hashes()), token
    )


class _Front:
    """Answers with the page and its scripts, and has the rest answered from inside."""

    def __init__(self, shell: ASGIApp, inside: Inside, is_script: Callable[[str], bool]) -> None:
        self._shell = shell
        self._inside = inside
        self._is_script = is_script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = scope.get("darkit_page")
        if page is not None and is_page(page):
            self._inside.warm(page, scope["query_string"].decode("latin-1"))
            asked = page_asked.set(page)
            try:
                await self._shell(scope, receive, send)
            finally:
                page_asked.reset(asked)
        elif scope["path"].startswith(SUITES) and not self._is_script(scope["path"]):
            await PlainTextResponse("There is no such script.", 404)(scope, receive, send)
        elif scope["path"].startswith(_SHELL):
            await self._shell(scope, receive, send)
        else:
            app = self._inside.app
            answering = app.result() if app.done() else await asyncio.wrap_future(app)
            await answering(scope, receive, send)
