"""The page of several runs: charts, values, configs, and config keys against a metric."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash_ag_grid as dag
from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts, Shown
from darkit.dashboard.charts.compare import FEWEST_PARALLEL, config_rows, differing_keys, value_rows
from darkit.dashboard.pages.controls import chart_controls, follow
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import card, chart_board, run_dot
from darkit.dashboard.texts import grid_texts, text
from darkit.dashboard.view import MOST_RUNS, read_address
from darkit.runs.roots import is_address

_MOST_AXES = 4


def compare_page(
    language: str, names: Sequence[str], shown: Sequence[Shown], state: Mapping[str, Any]
) -> list[Component]:
    """Return the page of the selected names, of which the runs ``shown`` exist."""
    found = {run.facts.name for run in shown}
    gone = [name for name in names if name not in found]
    keys = differing_keys(shown)
    return [
        html.Div(
            [
                html.H1(text(language, "compare_title", count=len(shown))),
                html.Span(className="spacer"),
                html.Button(text(language, "export_page"), id="export-page", className="small-button"),
            ],
            className="toolbar",
        ),
        html.P(text(language, "compare_gone", names=", ".join(gone)), id="gone", className="warning", hidden=not gone),
        html.P(text(language, "compare_most", most=MOST_RUNS, count=state["left_out"]), className="warning")
        if state["left_out"]
        else None,
        chart_controls(language, state, keys, groups=True),
        chart_board(names, language),
        card(text(language, "values"), html.Div(values_table(shown, language), id="values-box")),
        card(text(language, "configs"), *_configs(shown, language, state["all"])),
        _parallel(shown, keys, language, state),
    ]


def add_callbacks(app: Dash, charts: Charts) -> None:
    """Add the callbacks of the cards below the charts."""
    follow(app, "parallel", [Input("parallel-keys", "value"), Input("parallel-metric", "value")], "parallel-keys")

    @app.callback(
        Output("values-box", "children"),
        Input("grown", "data"),
        State("url", "href"),
        State("words", "data-language"),
        prevent_initial_call=True,
    )
    def renew_values(_: Any, href: str | None, language: str) -> Component:
        names = [name for name in read_address(href or "/")[1]["runs"] if is_address(name)]
        return values_table(charts.chosen(names, "log"), language)

    @app.callback(
        Output("config-grid", "rowData"),
        Output("config-box", "hidden"),
        Output("config-box", "style"),
        Output("no-differences", "hidden"),
        Input("all-keys", "checked"),
        State("url", "href"),
        prevent_initial_call=True,
    )
    def switch_keys(everything: bool, href: str | None) -> tuple[list[dict[str, str]], bool, dict[str, str], bool]:
        _, state = read_address(href or "/")
        shown = charts.chosen(state["runs"], "log")
        rows = config_rows_for(shown, everything)
        return rows, not rows, config_box_style(shown, len(rows)), bool(rows)

    follow(app, "all", [Input("all-keys", "checked")], "all-keys")


def values_table(shown: Sequence[Shown], language: str) -> Component:
    """Return the last and best values of each series, the best of all runs highlighted."""
    names, rows, best = value_rows(shown)
    head = html.Thead(
        [
            html.Tr(
                [html.Th(text(language, "run"), rowSpan=2)]
                + [html.Th(name, colSpan=2, className="number series-name") for name in names]
            ),
            html.Tr([html.Th(text(language, word), className="number") for _ in names for word in ("last", "best")]),
        ]
    )
    body = []
    for place, row in enumerate(rows):
        cells = [html.Th([run_dot(row.shown.index), row.shown.facts.name], scope="row")]
        for index, pair in enumerate(row.values):
            is_best = best[index] == place
            cells.append(html.Td(f"{pair[0]:.5g}" if pair else "", className="number"))
            cells.append(html.Td(f"{pair[1]:.5g}" if pair else "", className="number best" if is_best else "number"))
        body.append(html.Tr(cells))
    return html.Div(html.Table([head, html.Tbody(body)], className="values numbers"), className="scroll-x")


def config_rows_for(shown: Sequence[Shown], everything: bool) -> list[dict[str, str]]:
    """Return the rows of the config grid."""
    return [
        {
            "key": row.key,
            "differs": "yes" if everything and row.differs else "",
            **{f"r{i}": v for i, v in enumerate(row.values)},
        }
        for row in config_rows(shown)
        if everything or row.differs or len(shown) < 2
    ]


def config_box_style(shown: Sequence[Shown], rows: int) -> dict[str, str]:
    """Return the height of the config grid: that of its rows, up to a limit."""
    return {"height": f"{min(560, _header_height(shown) + 32 * rows + 4)}px"}


def _header_height(shown: Sequence[Shown]) -> int:
    return 34 if all(len(run.facts.name) <= 14 for run in shown) else 54


def _configs(shown: Sequence[Shown], language: str, everything: bool) -> list[Component]:
    rows = config_rows_for(shown, everything)
    columns: list[dict[str, Any]] = [
        {"field": "key", "headerName": text(language, "key"), "pinned": "left", "width": 190, "tooltipField": "key"}
    ]
    columns += [
        {
            "field": f"r{i}",
            "headerName": run.facts.name,
            "headerTooltip": run.facts.name,
            "tooltipField": f"r{i}",
            "minWidth": 120,
            "flex": 1,
        }
        for i, run in enumerate(shown)
    ]
    return [
        dmc.Switch(id="all-keys", label=text(language, "all_keys"), checked=everything, size="xs", mb="xs"),
        html.P(
            text(language, "no_differences"),
            id="no-differences",
            className="muted",
            hidden=bool(rows) or len(shown) < 2,
        ),
        html.Div(
            dag.AgGrid(
                id="config-grid",
                rowData=rows,
                columnDefs=columns,
                className="",
                defaultColDef={
                    "resizable": True,
                    "sortable": True,
                    "suppressHeaderMenuButton": True,
                    "wrapHeaderText": True,
                },
                rowClassRules={"differs": "params.data.differs == 'yes'"},
                dashGridOptions={
                    "theme": {"function": "darkitTheme(themeQuartz)"},
                    "localeText": grid_texts(language),
                    "rowHeight": 32,
                    "headerHeight": _header_height(shown),
                    "enableCellTextSelection": True,
                },
                style={"height": "100%", "width": "100%"},
            ),
            id="config-box",
            style=config_box_style(shown, len(rows)),
            hidden=not rows,
        ),
    ]


def _parallel(shown: Sequence[Shown], keys: Sequence[str], language: str, state: Mapping[str, Any]) -> Component:
    if len(shown) < FEWEST_PARALLEL:
        return card(text(language, "parallel"), html.P(text(language, "parallel_few"), className="muted"))
    metrics, _, _ = value_rows(shown)
    chosen = [key for key in state["keys"] if key in keys] or list(keys[:_MOST_AXES])
    metric = state["metric"] if state["metric"] in metrics else _first_metric(metrics)
    return card(
        text(language, "parallel"),
        html.Div(
            [
                dmc.MultiSelect(
                    id="parallel-keys",
                    data=list(keys),
                    value=chosen,
                    label=text(language, "parallel_keys"),
                    size="xs",
                    searchable=True,
                ),
                dmc.Select(
                    id="parallel-metric",
                    data=metrics,
                    value=metric,
                    label=text(language, "parallel_metric"),
                    size="xs",
                    allowDeselect=False,
                ),
            ],
            className="controls",
        ),
        html.Div(
            id="parallel", className="plot parallel", **{"data-first": json.dumps(chosen), "data-metric": metric or ""}
        ),
    )


def _first_metric(metrics: Sequence[str]) -> str | None:
    return next((name for name in metrics if name.startswith("val")), metrics[0] if metrics else None)
