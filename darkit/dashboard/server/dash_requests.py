"""Checks of requests to Dash, which fails on scripts that do not exist and on malformed callbacks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dash import Dash
from dash.fingerprint import check_fingerprint
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SUITES = "/_dash-component-suites/"
_CALLBACK = "/_dash-update-component"


def is_script(app: Dash, path: str) -> bool:
    """Says whether a path below ``/_dash-component-suites/`` is a file that a page may load."""
    package, _, wanted = path.removeprefix(SUITES).partition("/")
    name = check_fingerprint(wanted)[0]
    if name not in app.registered_paths.get(package, ()):
        return False
    folders = getattr(sys.modules.get(package), "__path__", [])
    return any((Path(folder) / name).is_file() for folder in folders)


class CheckedCallbacks:
    """Refuses calls of callbacks that no page makes, before Dash fails on them.

    Args:
        inner: The server of the Dash application.
        app: The Dash application.
    """

    def __init__(self, inner: ASGIApp, app: Dash) -> None:
        self._inner = inner
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or scope["path"] != _CALLBACK or scope["method"] != "POST":
            await self._inner(scope, receive, send)
            return
        problem = callback_problem(self._app.callback_map, scope["darkit_body"])
        answering = PlainTextResponse(problem, 400) if problem else self._inner
        await answering(scope, receive, send)


def callback_problem(callbacks: Mapping[str, Mapping[str, Any]], body: Mapping[str, Any]) -> str:
    """Says in one sentence why a body does not call one of the callbacks; empty when it does.

    Args:
        callbacks: Dash's map: output -> what is known of its callback.
        body: The body of the request.
    """
    output = body.get("output")
    callback = callbacks.get(output) if isinstance(output, str) else None
    if not isinstance(output, str) or callback is None or "callback" not in callback:  # or it is one of the browser's
        return "There is no such callback."
    for group in ("inputs", "state"):
        wanted = [(item["id"], item["property"]) for item in callback[group]]
        items = body.get(group, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            return f"The {group} of a callback must be a list of objects."
        if [(item.get("id"), item.get("property")) for item in items] != wanted:
            return f"These are not the {group} of the callback."
        for item in items:
            if not _fits(item["id"], item["property"], item.get("value")):
                return f"The value of {item['id']}.{item['property']} is of the wrong type."
    outputs, changed = body.get("outputs", []), body.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(isinstance(item, str) for item in changed):
        return "changedPropIds must be a list of texts."
    specified = output.startswith("..")
    if not outputs or isinstance(outputs, list) != specified:
        return "The outputs of the callback are missing."
    sound = [
        isinstance(item, dict) and {"id", "property"} <= set(item) for item in (outputs if specified else [outputs])
    ]
    if not all(sound) or (specified and len(sound) != output.count("...") + 1):
        return "These are not the outputs of the callback."
    return ""


_KINDS: Mapping[str, tuple[type, ...]] = {  # of a property, or of that of one component
    "n_clicks": (int,),
    "opened": (bool,),
    "checked": (bool,),
    "href": (str,),
    "value": (str,),
    "data-language": (str,),
    "language.data": (str,),
    "changed.data": (dict,),
    "selection.data": (list,),
    "notes-tags.value": (list,),
    "own-tags.value": (list,),
}
_NEEDED = ("selection.data", "data-language")


def _fits(component: str, property_name: str, value: object) -> bool:
    full = f"{component}.{property_name}"
    if value is None:
        return full not in _NEEDED and property_name not in _NEEDED
    kinds = _KINDS.get(full) or _KINDS.get(property_name)
    if kinds is None:
        return True
    if isinstance(value, dict):
        value = [key for pair in value.items() for key in pair if key is not None]
        return kinds == (dict,) and all(isinstance(item, str | int | float) for item in value)
    return isinstance(value, kinds) and (not isinstance(value, list) or all(isinstance(item, str) for item in value))
