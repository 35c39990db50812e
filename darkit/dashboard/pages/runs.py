"""The page of all runs: a table, and beside it the charts of the runs that are ticked or pointed at."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from dash import Dash, Input, html
from dash.development.base_component import Component

from darkit.dashboard.pages.actions import delete_dialog
from darkit.dashboard.pages.bulk import move_dialog, rename_dialog, trash_dialog
from darkit.dashboard.pages.controls import chart_controls, follow, spread_choice
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.notes import notes_dialog
from darkit.dashboard.pages.parts import COPIES, code_block, menu
from darkit.dashboard.texts import text

_PYTHON = "import darkit\nrun = darkit.fit(model, data)"


def runs_page(language: str, root: str, state: Mapping[str, Any]) -> list[Component]:
    """Return the page; its script fills the grid and keeps it up to date."""
    return [
        html.Div(
            [
                _toolbar(language, state),
                _no_runs(language, root),
                html.Div(
                    [
                        html.Div(
                            [html.Div(html.Div(id="grid"), id="grid-box"), _selection_bar(language)], id="table-side"
                        ),
                        html.Div(
                            id="divider",
                            role="separator",
                            tabIndex=0,
                            **{
                                "aria-label": text(language, "divider"),
                                "aria-orientation": "vertical",
                                "aria-valuenow": "60",
                                "aria-valuemin": "20",
                                "aria-valuemax": "85",
                            },
                        ),
                        _charts(language, state),
                    ],
                    id="runs-split",
                ),
            ],
            className="runs-view",
        ),
        notes_dialog(language),
        delete_dialog(language),
        rename_dialog(language),
        move_dialog(language),
        trash_dialog(language),
    ]


def add_callbacks(app: Dash) -> None:
    """Add the callbacks of the query, the project, the archive switch, the columns and the groups."""
    controls = [
        ("search", "value"),
        ("archived", "checked"),
        ("columns", "value"),
        ("project", "value"),
        ("by", "value"),
    ]
    follow(app, "runs", [Input(*control) for control in controls], "search")


def _toolbar(language: str, state: Mapping[str, Any]) -> Component:
    say = partial(text, language)
    return html.Div(
        [
            html.H1(say("runs")),
            html.Span(id="run-count", className="muted", role="status"),
            html.Div(
                [
                    dmc.TextInput(
                        id="search",
                        value=state["search"],
                        placeholder=say("search_example"),
                        size="xs",
                        spellCheck=False,
                        autoComplete="off",
                        **{"aria-label": say("search")},
                    ),
                    html.Div(id="query-marks", **{"aria-hidden": "true"}),
                    html.Button(
                        "?", id="open-help", className="icon-button", title=say("help"), **{"aria-label": say("help")}
                    ),
                    html.Div(id="query-problem", role="alert", hidden=True),
                ],
                id="query-box",
            ),
            dmc.Select(
                id="project",
                data=[state["project"]] if state["project"] else [],
                value=state["project"] or None,
                placeholder=say("all_projects"),
                searchable=True,
                clearable=True,
                size="xs",
                w=150,
                style={} if state["project"] else {"display": "none"},
                **{"aria-label": say("col_project")},
            ),
            dmc.MultiSelect(
                id="by",
                data=[],
                value=state["by"],
                placeholder="" if state["by"] else say("group_by"),
                searchable=True,
                clearable=True,
                size="xs",
                className="by-choice",
                comboboxProps={"width": 280, "position": "bottom-end"},
                **{"aria-label": say("group_by")},
            ),
            spread_choice(language, state, state["by"]),
            dmc.MultiSelect(
                id="columns",
                data=[],
                value=[],
                placeholder=say("columns"),
                searchable=True,
                clearable=False,
                hidePickedOptions=False,
                size="xs",
                className="columns-choice",
                comboboxProps={"width": 320, "position": "bottom-end"},
                **{"aria-label": say("columns_hint")},
            ),
            dmc.Switch(id="archived", label=say("show_archived"), checked=state["archived"], size="xs"),
            menu(say("views"), "views", []),
            menu(
                say("copy_table"),
                "copy-table",
                [html.Button(say(word), className="menu-item", **{"data-copy-table": kind}) for kind, word in COPIES],
            ),
            html.Button(say("trash"), id="open-trash", className="small-button"),
            html.Button(say("charts"), id="show-charts", className="small-button", **{"aria-pressed": "true"}),
        ],
        className="toolbar",
    )


def _no_runs(language: str, root: str) -> Component:
    say = partial(text, language)
    return html.Div(
        [
            html.H2(say("empty_title")),
            html.P(say("empty_text")),
            code_block("darkit train", language),
            html.P(say("empty_python")),
            code_block(_PYTHON, language),
            html.P([say("empty_home"), " ", html.Code(root)], className="muted"),
        ],
        id="empty-home",
        className="card empty",
        hidden=True,
    )


def _selection_bar(language: str) -> Component:
    """Return what can be done to the ticked runs; the page's script shows it when there are any."""
    say = partial(text, language)
    return html.Div(
        [
            html.Span(id="selected-count", role="status"),
            html.Button(say("compare"), id="compare", className="small-button primary", disabled=True),
            html.Button(say("edit_notes"), id="edit-notes", className="small-button", disabled=True),
            html.Button(say("archive"), id="archive", className="small-button", disabled=True),
            html.Button(say("delete"), id="delete", className="small-button danger", disabled=True),
            menu(
                say("more"),
                "more",
                [
                    html.Button(say(word), id=id, className="menu-item", disabled=True)
                    for id, word in (
                        *(("baseline", "baseline"), ("rename", "rename")),
                        *(("move", "move"), ("export-runs", "export_runs")),
                    )
                ],
            ),
            html.Button("✕", id="clear-selection", className="icon-button", **{"aria-label": say("clear_selection")}),
        ],
        id="selection-bar",
        role="toolbar",
        hidden=True,
        **{"aria-label": say("selection_bar")},
    )


def _charts(language: str, state: Mapping[str, Any]) -> Component:
    return html.Div(
        [
            chart_controls(language, state, [], [state["x"]] if state["x"] else [], groups=False),
            html.P(text(language, "charts_hint"), id="charts-hint", className="muted", role="status"),
            html.Div(id="runs-charts", **{"data-language": language}),
        ],
        id="charts-side",
        role="region",
        tabIndex=0,
        **{"aria-label": text(language, "charts")},
    )
