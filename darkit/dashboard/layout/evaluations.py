"""How a run was evaluated after its training: what `darkit eval` noted."""

from __future__ import annotations

import time
from functools import partial

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.facts import Facts, readable
from darkit.dashboard.layout.parts import card
from darkit.dashboard.texts import text


def evaluations(facts: Facts, language: str) -> list[Component]:
    """A card with a row for each evaluation, the newest first; nothing for a run without."""
    found = facts.notes.evaluations[::-1]
    if not found:
        return []
    say = partial(text, language)
    metrics = list(dict.fromkeys(name for evaluation in found for name in evaluation.metrics))
    titles = [say("eval_data"), say("eval_checkpoint"), *map(readable, metrics), say("eval_time")]
    rows = [
        html.Tr(
            [
                html.Td(readable(evaluation.data)),
                html.Td(readable(evaluation.checkpoint)),
                *(html.Td(_shown(evaluation.metrics.get(name)), className="number") for name in metrics),
                html.Td(_moment(evaluation.time)),
            ]
        )
        for evaluation in found
    ]
    table = html.Table(
        [html.Thead(html.Tr([html.Th(title) for title in titles])), html.Tbody(rows)], className="values"
    )
    return [card(say("evaluations"), html.Div(table, className="scroll-x"))]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):  # no time that a clock can show
        return ""
