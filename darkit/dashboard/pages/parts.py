"""Parts that several pages share. Everything that comes from a run is passed to components as text, never as markup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from darkit.dashboard.charts.colours import colour, dash
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.texts import text
from darkit.runs.numbers import number_text

LATER = ("controls", "below")  # the charts' controls, and the cards below the charts of a comparison
COPIES = (("markdown", "copy_markdown"), ("latex", "copy_latex"), ("csv", "copy_csv"))  # of a table, with their words
_YEAR_3000 = 32_503_680_000.0  # seconds since 1970


def card(title: str, *children: Any) -> Component:
    """Return a titled block."""
    return html.Section([html.H2(title, className="card-title"), *children], className="card")


def still(content: Component) -> Component:
    """Return a part of a page that the page's script makes, because Dash takes a second for thousands of elements.

    Args:
        content: Elements of `dash.html` without ids, which no callback changes.
    """
    return html.Div(className="still", **{"data-tree": json.dumps(_tree(content), ensure_ascii=False)})


def _tree(content: Any) -> Any:
    """Return an element as its tag, its attributes and what is in it; text as it is."""
    if not isinstance(content, Component):
        return str(content)
    parts = dict(content.to_plotly_json()["props"])
    children = parts.pop("children", None)
    inside = children if isinstance(children, list) else [children]
    return [content.to_plotly_json()["type"].lower(), parts, [_tree(one) for one in inside if one is not None]]


def dialog(name: str, title: str, language: str, children: Sequence[Any]) -> Component:
    """Return a dialog, closed; a callback opens it by its id, ``<name>-dialog``."""
    return dmc.Modal(
        id=f"{name}-dialog",
        title=title,
        opened=False,
        centered=True,
        closeButtonProps={"aria-label": text(language, "close")},
        children=list(children),
    )


def dialog_foot(word: str, id: str, kind: str, *, disabled: bool = False) -> Component:
    """Return the foot of a dialog: the button that does what the dialog is for."""
    button = html.Button(word, id=id, className=f"small-button {kind}", disabled=disabled)
    return html.Div(button, className="dialog-foot")


def state_badge(state: str, language: str) -> Component:
    """Return the state of a run as a colour and a word."""
    return html.Span(
        [html.Span(className="state-dot"), state_word(state, language)], className=f"state state-{state_class(state)}"
    )


def state_word(state: str, language: str) -> str:
    """Return the word for a state; one that darkit does not have is shown as it is."""
    return text(language, f"state_{state}") if state_class(state) == state else state


def state_class(state: str) -> str:
    """Return the part of a class name that stands for a state."""
    return state if state in ("running", "stalled", "finished", "stopped", "crashed", "broken") else "unknown"


def facts_list(pairs: Sequence[tuple[str, Any]]) -> Component:
    """Return a list of names with their values, without those that have none."""
    rows = [[html.Dt(name), html.Dd(value)] for name, value in pairs if value not in (None, "")]
    return html.Dl([part for row in rows for part in row], className="facts")


def code_block(content: str, language: str, *, label: str = "", copy: bool = True, tall: bool = False) -> Component:
    """Return text in a fixed-width font with a button that copies it."""
    button = [copy_button(language)] if copy else []
    if not label and not tall:
        return html.Div([html.Pre(content, className="code", tabIndex=0), *button], className="code-block one-line")
    return html.Div(
        [
            html.Div([html.Span(label, className="code-label"), *button], className="code-head"),
            html.Pre(content, className="code tall" if tall else "code", tabIndex=0),
        ],
        className="code-block",
    )


def command_row(label: str, command: str, language: str) -> Component:
    """Return a command with its purpose and a button that copies it."""
    return html.Div(
        [
            html.Span(label, className="command-label"),
            html.Pre(command, className="code", tabIndex=0),
            copy_button(language),
        ],
        className="code-block command-row",
    )


def copy_button(language: str) -> Component:
    """Return a button by which the page's script copies the text of the block around it."""
    return html.Button(
        text(language, "copy"), className="small-button copy", **{"data-copied": text(language, "copied")}
    )


def chart_board(names: Sequence[str], language: str, *, source: str = "log", id: str = "charts") -> Component:
    """Return the place where the page's script draws the charts of runs."""
    data = {"data-runs": json.dumps(list(names)), "data-source": source, "data-language": language}
    return html.Div(
        [
            html.Div(className="chips", role="list"),
            html.Div(text(language, "loading"), className="board-message muted", role="status"),
            html.Div(className="chart-sections"),
        ],
        className="chart-board",
        id=id,
        **data,
    )


def later(name: str, *children: Any) -> Component:
    """Return a place for components that the browser makes after the table or the charts: they cost it time.

    Args:
        name: One of `LATER`.
        children: The components.
    """
    stores = [dcc.Store(id=f"{name}-tree", data=list(children)), dcc.Store(id=f"{name}-due")]
    return html.Div([html.Div(id=f"{name}-later"), *stores], className="later", **{"data-name": name})


def add_callbacks(app: Dash) -> None:
    """Add the callbacks that make what comes later; they run in the browser."""
    for name in LATER:
        app.clientside_callback(
            ClientsideFunction("darkit", "make"),
            Output(f"{name}-later", "children"),
            Input(f"{name}-due", "data"),
            State(f"{name}-tree", "data"),
            prevent_initial_call=True,
        )


def menu(word: str, id: str, items: Sequence[Component]) -> Component:
    """Return a button that opens a list of buttons; the page's script closes it."""
    return html.Details(
        [html.Summary(word, className="small-button"), html.Div(list(items), className="menu-items")],
        id=id,
        className="menu",
    )


def moment(seconds: float) -> Component | None:
    """Return a time that the page's script shows in the reader's time zone; None for an invalid one."""
    return html.Span(**{"data-moment": repr(seconds)}) if 0 < seconds < _YEAR_3000 else None


def duration(seconds: float) -> Component | None:
    """Return a duration that the page's script shows in the reader's language; None for an invalid one."""
    return html.Span(**{"data-duration": repr(seconds)}) if 0 <= seconds < _YEAR_3000 else None


def run_dot(index: int) -> Component:
    """Return a short line in the colour and with the dash of the curve of the run at this index."""
    return html.Span(className=f"run-dot dash-{dash(index)}", style={"--curve": colour(index)})


def shown_setting(value: Any) -> str:
    """Return a config value as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number_text(value, 10)
    return "null" if value is None else str(value)
