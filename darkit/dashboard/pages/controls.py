"""Controls whose work is done in the browser: they change the page's address, and the charts follow it."""

from __future__ import annotations

from collections.abc import Sequence

from dash import ClientsideFunction, Dash, Input, Output, State

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.pages.compare import config_box_style, config_rows_for
from darkit.dashboard.view import read_address

_VIEW = ("axis", "smooth", "log", "robust", "group")


def add(app: Dash) -> None:
    """Adds the callbacks."""
    app.clientside_callback(
        ClientsideFunction("darkit", "mounted"), Output("mounted", "data"), Input("page", "children")
    )
    _follow(app, "view", [Input(name, "checked" if name in ("log", "robust") else "value") for name in _VIEW], "axis")
    _follow(app, "tab", [Input("tabs", "value")], "tabs")
    _follow(app, "parallel", [Input("parallel-keys", "value"), Input("parallel-metric", "value")], "parallel-keys")
    _follow(
        app,
        "runs",
        [Input("search", "value"), Input("archived", "checked"), Input("columns", "value")],
        "search",
    )


def add_config_switch(app: Dash, charts: Charts) -> None:
    """Adds the switch between all config keys and those that differ."""

    @app.callback(
        Output("config-grid", "rowData"),
        Output("config-box", "hidden"),
        Output("config-box", "style"),
        Output("no-differences", "hidden"),
        Input("all-keys", "checked"),
        State("url", "href"),
        prevent_initial_call=True,
    )
    def switch(everything: bool, href: str | None) -> tuple[list[dict[str, str]], bool, dict[str, str], bool]:
        _, state = read_address(href or "/")
        shown = charts.chosen(state["runs"], "log")
        rows = config_rows_for(shown, everything)
        return rows, not rows, config_box_style(shown, len(rows)), bool(rows)

    app.clientside_callback(
        ClientsideFunction("darkit", "follow_all"),
        Output("all-keys", "data-followed"),
        Input("all-keys", "checked"),
        prevent_initial_call=True,
    )


def _follow(app: Dash, name: str, inputs: Sequence[Input], holder: str) -> None:
    app.clientside_callback(
        ClientsideFunction("darkit", f"follow_{name}"),
        Output(holder, "data-followed"),
        *inputs,
        prevent_initial_call=True,
    )
