"""Dash as the dashboard uses it, and everything here that relies on what Dash does not promise.

A test in tests/dashboard/server/test_dash_app.py names each of these, so that it fails when Dash changes:

- the addresses ``_dash-component-suites`` and ``_dash-update-component``: requests to them are checked, because Dash
  fails on scripts that do not exist and on malformed calls (`script_file`, `callback_problem`);
- ``registered_paths`` and ``callback_map``, against which they are checked;
- the element ``_dash-config`` with ``requests_pathname_prefix``, which assets/app.js changes before the renderer
  reads it;
- the text of the script tags, of which some are left out (`_Dash.interpolate_index`): assets/dash.js has what the pages
  use of ``dash.dcc``, and the polyfill is for browsers in which neither plotly nor AG Grid work;
- the body of the renderer's call for the first page, and that 204 is an answer that changes nothing (assets/dash.js);
- the event ``_dashprivate_pushstate``, after which the renderer reads the address again (``show`` in assets/app.js);
- the attribute ``backend.websocket_capability`` (`make_dash`);
- the environment variables that change its options (`_clean_environment`).

What is not promised of dash-mantine-components is in ``pages/mantine.py``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from dash import Dash
from dash.fingerprint import check_fingerprint
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from darkit.dashboard.charts import plotly
from darkit.dashboard.pages import mantine  # noqa: F401 - an imported library has its scripts in the page
from darkit.dashboard.server.lean import without
from darkit.dashboard.server.scripts import ASSETS, GRID_ADDRESS, own_script, own_style

COMPONENTS = "/_dash-component-suites/"
_CALLBACK = "/_dash-update-component"
_UNUSED = re.compile(r'<script src="[^"]*/(?:dash/deps/polyfill@|dash/dcc/|dash/dash_table/)[^"]*"></script>\n?')
_OWN_ADDRESS = re.compile(r'\b(src|href)="/(?!/)')
_INDEX = f"""<!DOCTYPE html>
<html>
<head>
{{%metas%}}
<meta name="color-scheme" content="light dark">
<meta name="plotly" content="{plotly.ADDRESS}">
<meta name="plotly-whole" content="{plotly.WHOLE_ADDRESS}">
<meta name="grid" content="{GRID_ADDRESS}">
<meta name="root" content="{{%root%}}">
<title>{{%title%}}</title>
<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{{%own_style%}}">
{{%css%}}
</head>
<body>
{{%app_entry%}}
<footer>
{{%config%}}
<script src="{{%own_script%}}"></script>
{{%scripts%}}
{{%renderer%}}
</footer>
</body>
</html>"""

page_asked: ContextVar[str] = ContextVar("page_asked", default="/")  # the path of the page that is being answered
root_asked: ContextVar[str] = ContextVar("root_asked", default="./")  # from there to the root of this server


class _Dash(Dash):  # type: ignore[misc] # Dash has no types
    """Dash that loads the two long scripts, plotly's and the grid's, when the page needs them.

    The pages' own script comes before those of Dash, so that what a page needs is on its way while they are loaded.
    """

    own_script = own_style = ""  # their addresses

    def interpolate_index(self, **parts: Any) -> str:
        """Load plotly from the start where there are charts, and the grid where there is the table of runs."""
        page = page_asked.get()
        name, address = ("grid", GRID_ADDRESS) if page == "/" else ("plotly", plotly.ADDRESS)
        long = f'<script async id="{name}-script" src="{address}"></script>\n'
        parts["scripts"] = long + _UNUSED.sub("", parts["scripts"])
        # relative: behind a proxy, only the browser knows the path at which this server is reached
        root = root_asked.get()
        whole = str(super().interpolate_index(**parts)).replace("{%root%}", root)
        whole = whole.replace("{%own_script%}", self.own_script).replace("{%own_style%}", self.own_style)
        return _OWN_ADDRESS.sub(rf'\1="{root}', whole)


def make_dash() -> Dash:
    """Make an empty Dash application; its ``server`` is the FastAPI application to serve."""
    with _clean_environment(), without("flask"):  # which Dash imports to see that the server is none
        app = _Dash(
            __name__,
            server=FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
            backend="fastapi",
            assets_folder=str(ASSETS),
            pages_folder="",
            use_pages=False,
            routes_pathname_prefix="/",
            requests_pathname_prefix="/",
            compress=False,
            eager_loading=False,
            include_assets_files=False,
            serve_locally=True,
            suppress_callback_exceptions=True,
            enable_mcp=False,
            update_title="",
            title="darkit",
            index_string=_INDEX,
            add_log_handler=False,
        )
    app.own_script, app.own_style = own_script().address, own_style().address
    app.backend.websocket_capability = False  # spares the page a script that nothing here uses
    return app


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Hide the variables by which the environment could change debugging, paths and what Dash serves."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("DASH_", "_DASH_"))}
    try:
        yield
    finally:
        os.environ.update(hidden)


def script_file(app: Dash, path: str) -> Path | None:
    """Return the file that a page may load from a path below `COMPONENTS`; None if there is none."""
    package, _, wanted = path.removeprefix(COMPONENTS).partition("/")
    name = check_fingerprint(wanted)[0]
    if name not in app.registered_paths.get(package, ()):
        return None
    folders = getattr(sys.modules.get(package), "__path__", [])
    return next((Path(folder) / name for folder in folders if (Path(folder) / name).is_file()), None)


def is_lasting(path: str) -> bool:
    """Return whether a path below `COMPONENTS` is that of a script of a page, which names its version and its time."""
    return path.endswith(".js") and bool(check_fingerprint(path.removeprefix(COMPONENTS))[1])


class CheckedCallbacks:
    """The server of a Dash application that refuses calls which no page makes."""

    def __init__(self, app: Dash) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering: ASGIApp = self.app.server
        if scope["type"] == "http" and scope["path"] == _CALLBACK and scope["method"] == "POST":
            problem = callback_problem(self.app.callback_map, scope["darkit_body"])
            answering = PlainTextResponse(problem, 400) if problem else answering
        await answering(scope, receive, send)


def callback_problem(callbacks: Mapping[str, Mapping[str, Any]], body: Mapping[str, Any]) -> str:
    """Return one sentence on why a body does not call one of Dash's ``callback_map``; empty if it does."""
    output = body.get("output")
    callback = callbacks.get(output) if isinstance(output, str) else None
    if not isinstance(output, str) or callback is None or "callback" not in callback:  # or it runs in the browser
        return "No such callback."
    for group in ("inputs", "state"):
        wanted = [(item["id"], item["property"]) for item in callback[group]]
        items = body.get(group, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            return f"The {group} of a callback must be a list of objects."
        if [(item.get("id"), item.get("property")) for item in items] != wanted:
            return f"These are not the {group} of the callback."
        for item in items:
            if not _fits(item["id"], item["property"], item.get("value")):
                return f"The value of {item['id']}.{item['property']} has the wrong type."
    outputs, changed = body.get("outputs", []), body.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(isinstance(item, str) for item in changed):
        return "changedPropIds must be a list of strings."
    several = output.startswith("..")
    if not outputs or isinstance(outputs, list) != several:
        return "The outputs of the callback are missing."
    sound = [isinstance(item, dict) and {"id", "property"} <= set(item) for item in (outputs if several else [outputs])]
    if not all(sound) or (several and len(sound) != output.count("...") + 1):
        return "These are not the outputs of the callback."
    return ""


_TYPES: Mapping[str, tuple[type, ...]] = {  # of a property, or of that of one component
    "n_clicks": (int,),
    "opened": (bool,),
    "checked": (bool,),
    "href": (str,),
    "address.data": (str,),
    "undo.data": (str,),
    "restore.data": (str,),
    "value": (str,),
    "data-language": (str,),
    "language.data": (str,),
    "changed.data": (dict,),
    "selection.data": (list,),
    "group.value": (list,),
    "notes-tags.value": (list,),
    "tags-away.value": (list,),
    "own-tags.value": (list,),
}
_REQUIRED = ("selection.data", "data-language")


def _fits(component: str, property_name: str, value: object) -> bool:
    full = f"{component}.{property_name}"
    if value is None:
        return full not in _REQUIRED and property_name not in _REQUIRED
    types = _TYPES.get(full) or _TYPES.get(property_name)
    if types is None:
        return True
    if isinstance(value, dict):
        value = [key for pair in value.items() for key in pair if key is not None]
        return types == (dict,) and all(isinstance(item, str | int | float) for item in value)
    return isinstance(value, types) and (not isinstance(value, list) or all(isinstance(item, str) for item in value))
