"""Config keys against a metric, below a comparison's charts: points of one, parallel coordinates of several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dash import Dash, Input, html
from dash.development.base_component import Component

from darkit.dashboard.charts.compare import FEWEST_PARALLEL
from darkit.dashboard.charts.panels import filled_titles
from darkit.dashboard.charts.scatter import first_key
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.pages.controls import follow
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import card
from darkit.dashboard.texts import text

_MOST_AXES = 4
_FEWEST_POINTS = 2


def key_cards(shown: Sequence[Shown], keys: Sequence[str], language: str, state: Mapping[str, Any]) -> list[Component]:
    """Return the cards of a metric against the keys in which runs differ."""
    metrics = filled_titles(shown)
    metric = state["metric"] if state["metric"] in metrics else metrics[0] if metrics else None
    cards = []
    if len(shown) >= _FEWEST_POINTS and keys and metric:
        first = first_key([run.facts.config_values() for run in shown], keys)
        cards.append(_scatter(keys, first, metrics, metric, language, state))
    return [*cards, _parallel(shown, keys, metrics, metric, language, state)]


def add_callbacks(app: Dash) -> None:
    """Add what follows the controls of the cards."""
    follow(app, "parallel", [Input("parallel-keys", "value"), Input("parallel-metric", "value")], "parallel-keys")
    values = [("scatter-key", "value"), ("scatter-metric", "value"), ("scatter-x", "checked"), ("scatter-y", "checked")]
    follow(app, "scatter", [Input(*value) for value in values], "scatter-key")


def _scatter(
    keys: Sequence[str], first: str, metrics: Sequence[str], metric: str, language: str, state: Mapping[str, Any]
) -> Component:
    say = partial(text, language)
    key = state["against"] if state["against"] in keys else first
    shown = state["metric_against"] if state["metric_against"] in metrics else metric
    switches = [
        dmc.Switch(id=f"scatter-{axis}", label=say(f"log_{axis}"), checked=state[f"log_{axis}"], size="xs")
        for axis in ("x", "y")
    ]
    choices = [
        _choice("scatter-key", say("key"), keys, key),
        _choice("scatter-metric", say("parallel_metric"), metrics, shown),
    ]
    drawn = {"key": key, "metric": shown, "log_x": state["log_x"], "log_y": state["log_y"]}
    plot = html.Div(id="scatter", className="plot parallel", **{"data-first": json.dumps(drawn)})
    return card(say("scatter"), html.Div([*choices, *switches], className="controls end"), plot)


def _parallel(
    shown: Sequence[Shown],
    keys: Sequence[str],
    metrics: Sequence[str],
    metric: str | None,
    language: str,
    state: Mapping[str, Any],
) -> Component:
    say = partial(text, language)
    if len(shown) < FEWEST_PARALLEL:
        return card(say("parallel"), html.P(say("parallel_few"), className="muted"))
    chosen = [key for key in state["keys"] if key in keys] or list(keys[:_MOST_AXES])
    choices = [
        dmc.MultiSelect(
            id="parallel-keys", data=list(keys), value=chosen, label=say("parallel_keys"), size="xs", searchable=True
        ),
        _choice("parallel-metric", say("parallel_metric"), metrics, metric),
    ]
    data = {"data-first": json.dumps(chosen), "data-metric": metric or ""}
    return card(
        say("parallel"),
        html.Div(choices, className="controls"),
        html.Div(id="parallel", className="plot parallel", **data),
        html.P(say("parallel_hint"), id="brushed", className="muted", role="status"),
    )


def _choice(id: str, label: str, data: Sequence[str], value: str | None) -> Component:
    return dmc.Select(id=id, data=list(data), value=value, label=label, size="xs", allowDeselect=False, searchable=True)
