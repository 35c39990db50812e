"""Dash as the dashboard uses it: one set of options, and nothing that the environment could change."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import dash_ag_grid  # noqa: F401 - what is imported has its scripts in the page
from dash import Dash
from fastapi import FastAPI

from darkit.dashboard.charts import plotly
from darkit.dashboard.pages import mantine  # noqa: F401 - as above

_ASSETS = Path(__file__).parents[1] / "assets"
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


_GRID = re.compile(r'<script src="([^"]*/dash_ag_grid[^"]*)"></script>')

page_asked: ContextVar[str] = ContextVar("page_asked", default="/")


class _Dash(Dash):  # type: ignore[misc] # Dash says nothing of its types
    """Dash whose page of a single run, which has no table, leaves the grid's long script for later."""

    def interpolate_index(self, **parts: Any) -> str:
        if page_asked.get().startswith("/run/"):
            grid = _GRID.search(parts["scripts"])
            if grid is not None:
                parts["scripts"] = parts["scripts"].replace(grid[0], "")
                parts["metas"] += f'\n<meta name="grid" content="{grid[1]}">'
        return str(super().interpolate_index(**parts))


def make_dash() -> Dash:
    """Makes an empty Dash application; its ``server`` is the FastAPI one to serve."""
    with _clean_environment():
        app = _Dash(
            __name__,
            server=FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
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
    return app


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Hides the variables by which Dash would let the environment choose debugging, paths and what it serves."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("DASH_", "_DASH_"))}
    try:
        yield
    finally:
        os.environ.update(hidden)
