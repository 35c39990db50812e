"""The evaluations of a run after its training, as `darkit eval` recorded them."""

from __future__ import annotations

from functools import partial

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.parts import card, moment
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.texts import text
from darkit.runs.notes import OWN_DATA
from darkit.runs.numbers import number_text


def evaluations(facts: Facts, language: str) -> list[Component]:
    """Return a card with one row per evaluation, the newest first; nothing without evaluations."""
    found = facts.notes.evaluations[::-1]
    if not found:
        return []
    say = partial(text, language)
    metrics = list(dict.fromkeys(name for evaluation in found for name in evaluation.metrics))
    titles = [
        html.Th(say("eval_data")),
        html.Th(say("eval_checkpoint")),
        *(html.Th(readable(name), className="number") for name in metrics),
        html.Th(say("eval_time"), className="when"),
    ]
    rows = [
        html.Tr(
            [
                html.Td(readable(evaluation.data.replace(OWN_DATA, say("eval_own"), 1)), className="long"),
                html.Td(readable(evaluation.checkpoint), className="short"),
                *(html.Td(number_text(evaluation.metrics.get(name)), className="number") for name in metrics),
                html.Td(moment(evaluation.time), className="when"),
            ]
        )
        for evaluation in found
    ]
    table = html.Table([html.Thead(html.Tr(titles)), html.Tbody(rows)], className="values")
    return [card(say("evaluations"), html.Div(table, className="scroll-x", tabIndex=0))]
