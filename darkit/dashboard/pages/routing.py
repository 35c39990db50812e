"""Which page an address means, and all callbacks of the pages."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, ctx
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.pages import actions, bulk, compare, controls, notes, parts, run, runs
from darkit.dashboard.pages.compare import compare_page
from darkit.dashboard.pages.run import run_page
from darkit.dashboard.pages.runs import runs_page
from darkit.dashboard.pages.shell import lost, page
from darkit.dashboard.pages.undo import Undos
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts import LANGUAGES, preferred, text
from darkit.dashboard.view import read_address
from darkit.errors import DarkitError, RunNotFoundError
from darkit.runs.roots import check_address, is_address

_LANGUAGE_COOKIE = "darkit_language"


def add_callbacks(app: Dash, library: Library, charts: Charts) -> None:
    """Add the callback that shows the page of an address, and those of all pages."""
    undos = Undos()
    runs.add_callbacks(app)
    compare.add_callbacks(app, charts)
    run.add_callbacks(app, charts)
    controls.add_callbacks(app)
    parts.add_callbacks(app)
    notes.add_callbacks(app, library, undos)
    actions.add_callbacks(app, library, undos)
    bulk.add_callbacks(app, library, undos)
    app.clientside_callback(ClientsideFunction("darkit", "address"), Output("address", "data"), Input("url", "href"))
    app.clientside_callback(
        ClientsideFunction("darkit", "mounted"), Output("mounted", "data"), Input("page", "children")
    )

    @app.callback(
        Output("page", "children"), Input("address", "data"), Input("language", "data"), prevent_initial_call=True
    )
    def show(address: str | None, chosen: str | None) -> list[Component]:
        path, state = read_address(address or "/")  # below the address at which this server is reached
        language = _language(state["language"], chosen)
        content, wide = page_content(library, charts, path, state, language)
        return page(language, content, wide=wide)


def page_content(
    library: Library, charts: Charts, path: str, state: dict[str, Any], language: str
) -> tuple[list[Component], bool]:
    """Return the content of a page, and whether it takes the whole width."""
    if path == "/":
        return runs_page(language, readable(str(library.root)), state), True
    if path == "/compare":
        names = [name for name in state["runs"] if is_address(name)]
        shown = charts.chosen(names, "log")
        if not shown:
            gone = text(language, "compare_gone", names=", ".join(names)) if names else ""
            return lost(language, gone or text(language, "compare_none")), False
        return compare_page(language, names, shown, state), False
    if path.startswith("/run/"):
        try:
            name = check_address(path.removeprefix("/run/"))
            library.facts(name)
        except RunNotFoundError:
            return lost(language, text(language, "no_such_run", name=readable(name))), False
        except DarkitError as error:
            return lost(language, readable(str(error))), False
        return run_page(language, charts.chosen([name], "log")[0], state), False
    return lost(language, text(language, "not_found")), False


def _language(in_address: str, chosen: str | None) -> str:
    for language in (in_address, chosen, ctx.cookies.get(_LANGUAGE_COOKIE)):
        if language in LANGUAGES:
            return str(language)
    return preferred(str(ctx.headers.get("accept-language", "")))
