"""The page of all runs: a table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import dash_ag_grid as dag
from dash import Dash, Input, html
from dash.development.base_component import Component

from darkit.dashboard.pages.actions import delete_dialog
from darkit.dashboard.pages.controls import follow
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.notes import notes_dialog
from darkit.dashboard.pages.parts import code_block
from darkit.dashboard.texts import grid_texts, text

_PYTHON = "import darkit\nrun = darkit.fit(model, data)"


def runs_page(language: str, root: str, state: Mapping[str, Any]) -> list[Component]:
    """Return the page; its script fills the grid and keeps it up to date."""
    say = partial(text, language)
    return [
        html.Div(
            [
                html.H1(say("runs")),
                html.Span(id="run-count", className="muted"),
                dmc.TextInput(
                    id="search",
                    value=state["search"],
                    placeholder=say("search"),
                    size="xs",
                    **{"aria-label": say("search")},
                ),
                dmc.Select(
                    id="project",
                    data=[state["project"]] if state["project"] else [],
                    value=state["project"] or None,
                    placeholder=say("all_projects"),
                    searchable=True,
                    clearable=True,
                    size="xs",
                    w=160,
                    style={} if state["project"] else {"display": "none"},
                    **{"aria-label": say("col_project")},
                ),
                dmc.Switch(id="archived", label=say("show_archived"), checked=state["archived"], size="xs"),
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
                html.Span(className="spacer"),
                html.Button(say("edit_notes"), id="edit-notes", className="small-button", disabled=True),
                html.Button(say("archive"), id="archive", className="small-button", disabled=True),
                html.Button(say("delete"), id="delete", className="small-button danger", disabled=True),
                html.Button(say("compare"), id="compare", className="small-button primary", disabled=True),
            ],
            className="toolbar",
        ),
        html.Div(
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
        ),
        html.Div(
            dag.AgGrid(
                id="grid",
                rowData=[],
                columnDefs=[],
                style={"height": "100%", "width": "100%"},
                className="",
                dashGridOptions={
                    "theme": {"function": "darkitTheme(themeQuartz)"},
                    "localeText": grid_texts(language),
                    "rowSelection": {"mode": "multiRow", "enableClickSelection": False, "headerCheckbox": True},
                    "selectionColumnDef": {"pinned": "left", "width": 40, "resizable": False},
                    "animateRows": False,
                    "suppressColumnVirtualisation": False,
                    "rowHeight": 38,
                    "headerHeight": 38,
                    "tooltipShowDelay": 400,
                },
                getRowId="params.data.name",
                dangerously_allow_code=False,
            ),
            id="grid-box",
        ),
        notes_dialog(language),
        delete_dialog(language),
    ]


def add_callbacks(app: Dash) -> None:
    """Add the callback of the search, the project, the archive switch and the choice of columns."""
    controls = [("search", "value"), ("archived", "checked"), ("columns", "value"), ("project", "value")]
    follow(app, "runs", [Input(*control) for control in controls], "search")
