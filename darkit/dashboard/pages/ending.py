"""How a run ended: what is wrong with it, the reason, and where in the code it failed."""

from __future__ import annotations

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.pages.parts import code_block
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.series import divergence, series_values
from darkit.dashboard.texts import text
from darkit.runs.failure import place_of_failure
from darkit.runs.safe import as_dict

_MOST_PROBLEMS = 10  # of an import


def run_ending(facts: Facts, run: Shown, language: str) -> list[Component]:
    """Return how a run ended: problem, reason, and the traceback, opened at the user's own last frame."""
    parts: list[Component] = []
    problem = facts.problem or run.table.problem
    if problem:
        parts.append(html.P([html.B(text(language, "problem")), ": ", readable(problem)], className="warning"))
    if run.table.bad:
        parts.append(html.P(text(language, "bad_lines", count=run.table.bad), className="warning"))
    if facts.status.reason and facts.state not in ("running", "broken"):
        reason = readable(facts.status.reason)
        kind = {"crashed": "error", "stalled": "warning"}.get(facts.state, "remark")
        parts.append(html.P([html.B(text(language, "reason")), ": ", reason], className=kind))
    lost = divergence(facts, series_values(facts, run.table))
    if lost:
        sentence = text(language, "diverged", metric=lost[0], step=f"{lost[1]:,.0f}")
        parts.append(html.P(sentence, className="error", id="run-lost"))
    left_out = as_dict(facts.info.get("origin")).get("problems")
    for sentence in left_out[:_MOST_PROBLEMS] if isinstance(left_out, list) else []:
        parts.append(html.P([html.B(text(language, "left_out")), ": ", readable(str(sentence))], className="remark"))
    if facts.status.traceback:
        place = place_of_failure(facts.status.traceback)
        if place:
            parts.append(code_block(readable(place), language, label=text(language, "last_frame")))
        parts.append(folded("traceback", facts.status.traceback, language))
    return parts


def folded(title: str, content: str, language: str) -> Component:
    """Return long text behind its title."""
    return html.Details([html.Summary(text(language, title)), code_block(readable(content), language, tall=True)])
