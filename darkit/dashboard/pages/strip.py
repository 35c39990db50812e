"""The strip at the top of a run's page: how far it is, how fast, and how good."""

from __future__ import annotations

from functools import partial

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.pages.parts import duration, moment
from darkit.dashboard.reading.facts import Facts
from darkit.dashboard.reading.series import by_rank, divergence, series_values
from darkit.dashboard.reading.sessions import active_seconds, began
from darkit.dashboard.texts import text
from darkit.runs.checkpoints import checkpoint_steps
from darkit.runs.numbers import LOST_MARK, number_text

_MOST_METRICS = 3


def run_strip(run: Shown, language: str) -> Component:
    """Return the strip; the page's script and a callback keep it up to date."""
    facts = run.facts
    say = partial(text, language)
    fill = html.Div(className="progress-fill", style={"width": _width(facts)})
    bar = html.Div(fill, className="progress", hidden=not facts.status.max_step)
    steps = [html.Span(say("step"), className="tile-name"), html.B(_steps(facts), className="progress-text"), bar]
    pace = [html.B(className="pace"), html.Span(className="tile-more time-left")]
    tiles = [
        html.Div(steps, className="tile"),
        html.Div([html.Span(say("pace"), className="tile-name"), *pace], className="tile"),
        html.Div(strip_values(run, language), id="strip-values", className="tiles"),
    ]
    return html.Div(tiles, className="strip", id="run-progress")


def strip_values(run: Shown, language: str) -> list[Component]:
    """Return the last and best values of the metrics that matter, the duration, and the latest checkpoint."""
    facts = run.facts
    say = partial(text, language)
    values = series_values(facts, run.table)
    mark = LOST_MARK if divergence(facts, values) is not None else ""
    monitored = facts.trainer.get("monitor")
    ranked = by_rank(name for name, value in values.items() if value.ranked)
    names = sorted(ranked, key=lambda name: name != monitored)[:_MOST_METRICS]
    tiles = []
    for name in names:
        value = values[name]
        best = say("best_of", best=number_text(value.best) + mark) if value.best is not None else ""
        at = say("at_step", step=f"{value.best_at:,.0f}") if best and value.best_at is not None else ""
        odd = not abs(value.last) < float("inf")
        tiles.append(_tile(name, number_text(value.last), " · ".join(filter(None, (best, at))), bad=odd))
    seconds = active_seconds(facts, run.table)
    started = began(facts)
    if seconds is not None:
        tiles.append(_tile(say("col_duration"), duration(seconds), moment(started)))
    saved = checkpoint_steps(facts.folder)
    if saved:
        tiles.append(
            _tile(say("ckpt_last"), say("at_step", step=f"{saved[-1]:,}"), say("ckpt_count", count=len(saved)))
        )
    return tiles


def _tile(
    name: str, value: str | Component | None, more: str | Component | None = None, *, bad: bool = False
) -> Component:
    kind = "bad" if bad else ""
    parts = [html.Span(name, className="tile-name", title=name), html.B(value, className=kind)]
    return html.Div([*parts, html.Span(more, className="tile-more")], className="tile")


def _width(facts: Facts) -> str:
    status = facts.status
    done = status.step / status.max_step if status.max_step and status.max_step > 0 else 0
    return f"{100 * min(1, max(0, done)):.1f}%"


def _steps(facts: Facts) -> str:
    status = facts.status
    return f"{status.step:,} / {status.max_step:,}" if status.max_step else f"{status.step:,}"
