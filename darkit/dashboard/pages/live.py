"""Texts of a page that change while runs train: how a run ended, its checkpoints, last and best values."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, no_update
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.pages.checkpoints import checkpoints_card
from darkit.dashboard.pages.compare import values_table
from darkit.dashboard.pages.run import run_ending
from darkit.dashboard.view import read_address
from darkit.runs.names import is_name

_WORDS = State("words", "data-language")


def add(app: Dash, charts: Charts) -> None:
    """Adds the callbacks; the pages' scripts say when something changed."""

    @app.callback(
        Output("run-ending", "children"),
        Output("checkpoints-box", "children"),
        Input("changed", "data"),
        _WORDS,
        prevent_initial_call=True,
    )
    def renew_run(changed: dict[str, Any] | None, language: str) -> tuple[Any, Any]:
        shown = charts.chosen(_names([(changed or {}).get("name")]), "log")
        if not shown:  # it is gone, and the page says so
            return no_update, no_update
        return run_ending(shown[0].facts, shown[0], language), checkpoints_card(shown[0].facts, language)

    @app.callback(
        Output("values-box", "children"),
        Input("grown", "data"),
        State("url", "href"),
        _WORDS,
        prevent_initial_call=True,
    )
    def renew_values(_: Any, href: str | None, language: str) -> Component:
        return values_table(charts.chosen(_names(read_address(href or "/")[1]["runs"]), "log"), language)


def _names(names: list[Any]) -> list[str]:
    return [name for name in names if isinstance(name, str) and is_name(name)]
