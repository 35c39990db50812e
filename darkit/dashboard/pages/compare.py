"""The page of several runs: charts, values, configs, and config keys against a metric."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import count
from math import isfinite
from typing import Any

from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.compare import ValueRow, value_rows
from darkit.dashboard.charts.configs import MISSING, config_rows, differing_keys, shown_value
from darkit.dashboard.charts.panels import columns_of, filled_titles
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.pages import keys, statistics
from darkit.dashboard.pages.controls import chart_controls, follow
from darkit.dashboard.pages.lineage import fork_lines
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.media import media_board
from darkit.dashboard.pages.parts import COPIES, card, chart_board, later, run_dot, still
from darkit.dashboard.reading.media import has_media
from darkit.dashboard.reading.series import Value
from darkit.dashboard.texts import text
from darkit.dashboard.view import MOST_RUNS, read_address
from darkit.runs.numbers import LOST_MARK, number_text
from darkit.runs.roots import is_address

_SHOWN_KEYS = 4  # config keys that differ, beside the values


def compare_page(
    language: str, names: Sequence[str], shown: Sequence[Shown], state: Mapping[str, Any]
) -> list[Component]:
    """Return the page of the selected names, of which the runs ``shown`` exist."""
    found = {run.facts.name for run in shown}
    gone = [name for name in names if name not in found]
    differing = differing_keys(shown)
    more = len(differing) - _SHOWN_KEYS
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
        chart_controls(language, state, differing, columns_of(shown), groups=True),
        chart_board(names, language),
        html.Div(
            card(text(language, "tab_media"), media_board(names, language)), className="media-section", hidden=True
        )
        if any(has_media(run.facts.folder) for run in shown)
        else None,
        later(
            "below",
            card(
                text(language, "values"),
                html.Div(
                    [
                        dmc.Switch(
                            id="best-first", label=text(language, "best_first"), checked=state["top"], size="xs"
                        ),
                        *(
                            html.Button(text(language, word), className="small-button", **{"data-copy-values": kind})
                            for kind, word in COPIES
                        ),
                    ],
                    className="controls",
                ),
                html.Div(values_table(shown, language), id="values-box"),
                html.P(text(language, "keys_more", count=more), className="muted") if more > 0 else None,
                *fork_lines([run.facts for run in shown], language),
            ),
            *statistics.statistics_card(shown, filled_titles(shown), language, state),
            card(text(language, "configs"), *_configs(shown, language, state["all"])),
            *keys.key_cards(shown, differing, language, state),
        ),
    ]


def add_callbacks(app: Dash, charts: Charts) -> None:
    """Add the callbacks of the cards below the charts."""
    keys.add_callbacks(app)
    statistics.add_callbacks(app, charts)

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
        Output("config-grid", "data-rows"),
        Output("config-box", "hidden"),
        Output("config-box", "style"),
        Output("no-differences", "hidden"),
        Input("all-keys", "checked"),
        State("url", "href"),
        prevent_initial_call=True,
    )
    def switch_keys(everything: bool, href: str | None) -> tuple[str, bool, dict[str, str], bool]:
        _, state = read_address(href or "/")
        shown = charts.chosen(state["runs"], "log")
        rows = config_rows_for(shown, everything)
        return json.dumps(rows), not rows, config_box_style(shown, len(rows)), bool(rows)

    follow(app, "all", [Input("all-keys", "checked")], "all-keys")
    follow(app, "best", [Input("best-first", "checked")], "best-first")


def values_table(shown: Sequence[Shown], language: str) -> Component:
    """Return the config keys that differ and the last and best values of each series, the best of all highlighted."""
    names, rows, best = value_rows(shown)
    keys = differing_keys(shown)[:_SHOWN_KEYS]
    ranked = [any(value is not None and value.ranked for value in column) for column in _columns(rows)]
    words = [("last", "best_at_step") if one else ("last",) for one in ranked]
    columns = count()  # from left to right, by which the page's script sorts
    head = html.Thead(
        [
            html.Tr(
                [_sorted_by(text(language, "run"), next(columns), {}, rowSpan=2)]
                + [
                    _sorted_by(
                        key.rpartition(".")[2],
                        next(columns),
                        {"data-heading": key},
                        rowSpan=2,
                        className="number",
                        title=key,
                    )
                    for key in keys
                ]
                + [
                    html.Th(name, colSpan=len(some), className="number series-name")
                    for name, some in zip(names, words, strict=True)
                ]
            ),
            html.Tr(
                [
                    _sorted_by(text(language, word), next(columns), _headings(name, word, language), className="number")
                    for name, some in zip(names, words, strict=True)
                    for word in some
                ]
            ),
        ]
    )
    body = []
    for place, row in enumerate(rows):
        config = row.shown.facts.config_values()
        cells = [html.Th([_run_button(row, language), *_lost(row, language)], scope="row")]
        cells += [_config_cell(config.get(key, MISSING)) for key in keys]
        for index, value in enumerate(row.values):
            odd = value is not None and not isfinite(value.last)
            last = number_text(value.last) if value else ""
            kind = "number bad" if odd else "number"
            cells.append(html.Td(last, className=kind, **_sort_value(value.last if value else None)))
            if ranked[index]:
                cells.append(_best_cell(value, is_best=best[index] == place, lost=row.diverged is not None))
        body.append(html.Tr(cells))
    table = html.Table([head, html.Tbody(body)], className="values numbers")
    return still(html.Div(table, className="scroll-x", tabIndex=0))


def _config_cell(value: Any) -> Component:
    """Return a config value; numbers are sorted as numbers, however they are written."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return html.Td(shown_value(value), className="number", **(_sort_value(value) if number else {}))


def _best_cell(value: Value | None, *, is_best: bool, lost: bool) -> Component:
    """Return the best value of a run, with its step; that of a run that diverged is marked, and sorted last."""
    said = [number_text(value.best) if value else ""]
    if value and value.best_at is not None:
        said.append(html.Span(f" @{value.best_at:,.0f}", className="at-step"))
    if said[0] and lost:
        return html.Td([*said, LOST_MARK], className="number muted", **_sort_value(None))
    kind = "number best" if is_best else "number"
    return html.Td(said, className=kind, **_sort_value(value.best if value else None))


def _run_button(row: ValueRow, language: str) -> Component:
    """Return the name of a run, by a click on which the page's script lets its curves stand out."""
    name, hint = row.shown.facts.name, text(language, "highlight_hint")
    return html.Button([run_dot(row.shown.index), name], className="run-name", title=hint, **{"data-run": name})


def _sorted_by(word: str, column: int, headings: Mapping[str, str], **attributes: Any) -> Component:
    """Return the heading of a column, by a click on which the rows are sorted, and what a copy calls it."""
    data = {"data-column": str(column), "data-heading": word, **headings}
    return html.Th(html.Button(word, className="sort", **data), **attributes)


def _headings(name: str, word: str, language: str) -> dict[str, str]:
    """Return what a copy calls a column of a metric; one of best values and their steps is two for programs."""
    whole = {"data-heading": f"{name} · {text(language, word)}"}
    parts = {f"data-{part}": f"{name} · {text(language, part)}" for part in ("best", "step")}
    return whole | parts if word == "best_at_step" else whole


def _sort_value(value: float | None) -> dict[str, str]:
    """Return by what a cell is sorted; without a finite number it comes last."""
    return {"data-value": repr(value) if value is not None and isfinite(value) else ""}


def _columns(rows: Sequence[ValueRow]) -> list[tuple[Value | None, ...]]:
    return list(zip(*(row.values for row in rows), strict=True))


def _lost(row: ValueRow, language: str) -> list[Component]:
    if row.diverged is None:
        return []
    return [html.Span(text(language, "diverged_at", step=f"{row.diverged:,.0f}"), className="lost")]


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
            html.Div(
                id="config-grid",
                **{
                    "data-rows": json.dumps(rows),
                    "data-columns": json.dumps(columns),
                    "data-header": str(_header_height(shown)),
                },
            ),
            id="config-box",
            style=config_box_style(shown, len(rows)),
            hidden=not rows,
        ),
    ]
