"""What answers once a page is open: the runs, their figures, and what happens on the pages.

Its imports take longer than those of the page itself, so it is made while a browser takes in the page's scripts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from starlette.types import ASGIApp

if TYPE_CHECKING:
    from darkit.dashboard.reading.library import Library

_TURN = 0.0005  # seconds after which a thread that imports lets one that serves have its turn


class Inside:
    """The application behind the page, made in a thread of its own.

    Args:
        root: Where the runs are.
        stop: Ends the server if the key it is given is the right one.
        bound: How many bytes of logs to keep in memory at most.
        made: Called when it is made, or cannot be.
    """

    def __init__(self, root: Path, stop: Callable[[str], bool], bound: int, made: Callable[[], None]) -> None:
        self.app: Future[ASGIApp] = Future()
        self._library: Future[Library] = Future()
        self._arguments = root, stop, bound
        self._made = made
        for future in (self.app, self._library):
            future.set_running_or_notify_cancel()
        Thread(target=self._make, daemon=True).start()

    def warm(self, page: str, query: str) -> None:
        """Begins to read the logs of a page while the browser still loads its scripts."""
        Thread(target=self._warm, args=(page, query), daemon=True).start()

    def _warm(self, page: str, query: str) -> None:
        if self._library.exception() is None:
            warm(self._library.result(), page, query)

    def _make(self) -> None:
        turn = sys.getswitchinterval()
        sys.setswitchinterval(_TURN)
        try:
            self.app.set_result(self._build())
        except BaseException as error:  # whoever asks gets it
            logging.getLogger(__name__).exception("The dashboard could not be made.")
            for future in (self.app, self._library):
                if not future.done():
                    future.set_exception(error)
        finally:
            sys.setswitchinterval(turn)
            self._made()

    def _build(self) -> ASGIApp:
        root, stop, bound = self._arguments
        from darkit.dashboard.reading.cache import LogCache
        from darkit.dashboard.reading.library import Library

        library = Library(root, LogCache(bound))
        self._library.set_result(library)
        from darkit.dashboard.charts.charts import Charts
        from darkit.dashboard.pages.callbacks import add_callbacks
        from darkit.dashboard.pages.shell import frame
        from darkit.dashboard.server.api import add_routes
        from darkit.dashboard.server.dash_app import make_dash
        from darkit.dashboard.server.dash_requests import CheckedCallbacks
        from darkit.dashboard.server.predict import Prompts

        charts = Charts(library)
        app = make_dash()
        app.layout = frame
        add_callbacks(app, library, charts)
        add_routes(app.server, library, charts, Prompts(root.parent), stop)
        return CheckedCallbacks(app.server, app)


def warm(library: Library, page: str, query: str) -> None:
    """Reads what a page will ask for."""
    from darkit.dashboard.view import MOST_RUNS
    from darkit.errors import DarkitError
    from darkit.runs.names import run_path

    if page == "/":
        library.entries()
        return
    names = [unquote(page.removeprefix("/run/"))] if page != "/compare" else parse_qs(query).get("run", [])[:MOST_RUNS]
    try:
        for name in names:
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
