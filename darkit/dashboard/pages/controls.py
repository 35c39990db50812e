"""Controls that are followed in the browser: they change the page's address, and the charts follow it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, html
from dash.development.base_component import Component

from darkit.dashboard.charts.groups import ALL_BUT_SEED, OWN_KEYS
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import later
from darkit.dashboard.texts import text
from darkit.dashboard.view import SPREADS


def spread_choice(language: str, state: Mapping[str, Any], keys: Sequence[str]) -> Component:
    """Return the choice of what stands behind ± of groups, which is shown where runs are grouped."""
    say = partial(text, language)
    choice = dmc.SegmentedControl(
        id="spread",
        data=[{"value": kind, "label": f"± {say(f'spread_{kind}')}"} for kind in SPREADS],
        value=state["spread"],
        size="xs",
        **{"aria-label": say("spread")},
    )
    return html.Div(choice, id="spread-box", hidden=not keys)


def chart_controls(
    language: str, state: Mapping[str, Any], group_keys: Sequence[str], columns: Sequence[str], *, groups: bool
) -> Component:
    """Return the controls of charts: axis or column as x, smoothing, scale, groups."""
    say = partial(text, language)
    axes = [
        {"value": "step", "label": say("axis_step")},
        {"value": "epoch", "label": say("axis_epoch")},
        {"value": "relative", "label": say("axis_short_relative")},
        {"value": "wall", "label": say("axis_short_wall")},
    ]
    group = dmc.MultiSelect(
        id="group",
        data=[{"value": ALL_BUT_SEED, "label": say("group_all_but_seed")}]
        + [{"value": key, "label": say(f"col_{key}")} for key in OWN_KEYS]
        + [{"value": key, "label": key} for key in group_keys if key not in OWN_KEYS],
        value=state["group"],
        placeholder="" if state["group"] else say("group"),
        searchable=True,
        clearable=True,
        size="xs",
        className="by-choice",
        comboboxProps={"width": 280, "position": "bottom-end"},
        **{"aria-label": say("group")},
    )
    column = dmc.Select(
        id="x-column",
        data=list(columns),
        value=state["x"] if state["x"] in columns else None,
        placeholder=say("x_hint"),
        searchable=True,
        clearable=True,
        size="xs",
        w=170,
        **{"aria-label": say("x_column")},
    )
    bar = html.Div(
        [
            dmc.SegmentedControl(id="axis", data=axes, value=state["axis"], size="xs", **{"aria-label": say("axis")}),
            html.Div(column, id="x-column-box", hidden=not columns, **{"data-columns": json.dumps(list(columns))}),
            html.Div(
                [
                    html.Label(say("smooth"), className="control-label"),
                    dmc.Slider(
                        id="smooth",
                        value=state["smooth"],
                        min=0,
                        max=0.99,
                        step=0.01,
                        size="sm",
                        w=130,
                        updatemode="drag",
                        thumbLabel=say("smooth"),
                    ),
                    html.Span(id="smooth-value", className="control-value"),
                ],
                className="control",
            ),
            dmc.Switch(id="log", label=say("log"), checked=state["log"], size="xs"),
            dmc.Switch(id="robust", label=say("robust"), checked=state["robust"], size="xs"),
            html.Div(group, style=None if groups else {"display": "none"}),
            spread_choice(language, state, state["group"]) if groups else None,
            html.Button(say("reset_zoom"), id="reset-zoom", className="small-button", hidden=True),
        ],
        className="controls",
        role="toolbar",
        **{"aria-label": say("axis")},
    )
    return later("controls", bar)


def add_callbacks(app: Dash) -> None:
    """Add the callback of the charts' controls."""
    values = [
        (name, "checked" if name in ("log", "robust") else "value")
        for name in ("axis", "smooth", "log", "robust", "group")
    ]
    values.append(("x-column", "value"))
    follow(app, "view", [Input(*value) for value in values], "axis")
    follow(app, "spread", [Input("spread", "value")], "spread")


def follow(app: Dash, name: str, inputs: Sequence[Input], holder: str) -> None:
    """Let a function of the page's scripts follow controls; it changes the page's address.

    Args:
        app: The application.
        name: The function is ``follow_<name>`` in assets.
        inputs: The controls' properties.
        holder: A component of the same page, which gets the output that Dash requires.
    """
    app.clientside_callback(
        ClientsideFunction("darkit", f"follow_{name}"),
        Output(holder, "data-followed"),
        *inputs,
        prevent_initial_call=True,
    )
