"""Whether groups of runs differ by more than noise, below a comparison's charts: what ``darkit compare`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.contrasts import contrasts_of, grouping
from darkit.dashboard.charts.groups import ALL_BUT_SEED, OWN_KEYS
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.pages.controls import follow
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import card
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.texts import LANGUAGES, text
from darkit.dashboard.view import MOST_KEYS, read_address
from darkit.runs.comparison_tables import Rows, document, sentences, tables
from darkit.runs.groups import BEST, LAST
from darkit.runs.roots import is_address


def statistics_card(
    shown: Sequence[Shown], metrics: Sequence[str], language: str, state: Mapping[str, Any]
) -> list[Component]:
    """Return the card; nothing for a single run, or runs without metrics."""
    if len(shown) < 2 or not metrics:
        return []
    say = partial(text, language)
    metric = state["measured"] if state["measured"] in metrics else metrics[0]
    controls = [
        dmc.Select(
            id="statistics-metric",
            data=list(metrics),
            value=metric,
            size="xs",
            allowDeselect=False,
            searchable=True,
            **{"aria-label": say("statistics_metric")},
        ),
        dmc.SegmentedControl(
            id="statistics-at",
            data=[{"value": at, "label": say(at)} for at in (BEST, LAST)],
            value=state["at"],
            size="xs",
            **{"aria-label": say("statistics_at")},
        ),
    ]
    content, labels = _content(shown, state["group"], metric, state["at"], state["baseline"], language)
    baseline = dmc.Select(
        id="statistics-baseline",
        data=sorted(labels),
        value=labels[0] if labels else None,
        label=say("statistics_baseline"),
        size="xs",
        allowDeselect=False,
        searchable=True,
    )
    return [
        card(
            say("statistics"),
            html.Div(
                [*controls, html.Div(baseline, id="baseline-choice", className="beside", hidden=len(labels) < 2)],
                className="controls",
            ),
            html.Div(content, id="statistics-box"),
        )
    ]


def add_callbacks(app: Dash, charts: Charts) -> None:
    """Add what follows the card's controls, the groups of the charts, and rows that come."""
    chosen = [Input(f"statistics-{name}", "value") for name in ("metric", "at", "baseline")]
    follow(app, "statistics", chosen, "statistics-at")

    @app.callback(
        Output("statistics-box", "children"),
        Output("statistics-baseline", "data"),
        Output("statistics-baseline", "value"),
        Output("baseline-choice", "hidden"),
        *chosen,
        Input("group", "value"),
        Input("grown", "data"),
        State("url", "href"),
        State("words", "data-language"),
        prevent_initial_call=True,
    )
    def renew(
        metric: str | None,
        at: str | None,
        baseline: str | None,
        group: list[str] | None,
        _: Any,
        href: str | None,
        language: str,
    ) -> tuple[list[Component], list[str], str | None, bool]:
        names = [name for name in read_address(href or "/")[1]["runs"] if is_address(name)]
        keys = [readable(key) for key in (group or [])[:MOST_KEYS]]
        shown = charts.chosen(names, "log")
        content, labels = _content(shown, keys, readable(metric or ""), at or BEST, readable(baseline or ""), language)
        return content, sorted(labels), labels[0] if labels else None, len(labels) < 2


def _content(
    shown: Sequence[Shown], chosen: Sequence[str], metric: str, at: str, baseline: str, language: str
) -> tuple[list[Component], list[str]]:
    """Return what is said of the groups, and the labels of those compared, the baseline first."""
    say = partial(text, language)
    keys = grouping(shown, chosen)
    found = contrasts_of(shown, keys, metric, at, language, baseline)
    if not found.grouped or not found.repeated:
        return [html.P(say("statistics_alone" if found.grouped else "statistics_none"), className="muted")], []
    names = [
        say("group_all_but_seed") if key == ALL_BUT_SEED else say(f"col_{key}") if key in OWN_KEYS else key
        for key in keys
    ]
    parts: list[Component] = []
    compared, words = found.compared, LANGUAGES[language]
    if compared is not None:
        by = say("statistics_by", keys=", ".join(names), value=f"{metric} · {say(compared.at)}")
        buttons = [
            html.Button(say(word), className="small-button", **{"data-copy-text": document(compared, kind, words)})
            for kind, word in (("markdown", "copy_markdown"), ("latex", "copy_latex"))
        ]
        parts = [html.Div([html.P(by, className="muted"), *buttons], className="controls")]
        parts += [_table(rows) for rows in tables(compared, words)]
    said = [*(sentences(compared, words) if compared is not None else []), *found.left_out]
    listed = html.Ul([html.Li(sentence) for sentence in said], className="sentences", hidden=not said)
    return [*parts, listed], [group.label for group in compared.groups] if compared is not None else []


def _table(rows: Rows) -> Component:
    head, *rest = rows
    body = [
        html.Tr([html.Th(row[0], scope="row"), *(html.Td(cell, className="number") for cell in row[1:])])
        for row in rest
    ]
    names = [html.Th(name, className="number" if place else "") for place, name in enumerate(head)]
    table = html.Table([html.Thead(html.Tr(names)), html.Tbody(body)], className="values numbers")
    return html.Div(table, className="scroll-x", tabIndex=0)
