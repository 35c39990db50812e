"""The page of one run: its charts and everything that was recorded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.panels import columns_of
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.pages.actions import delete_dialog, stop_dialog
from darkit.dashboard.pages.checkpoints import checkpoints_card
from darkit.dashboard.pages.console import console_card
from darkit.dashboard.pages.controls import chart_controls, follow
from darkit.dashboard.pages.ending import folded, run_ending
from darkit.dashboard.pages.evaluations import evaluations
from darkit.dashboard.pages.graph import graph_box, has_graph, new_graph
from darkit.dashboard.pages.lineage import changed_settings, lineage_card
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.media import media_board
from darkit.dashboard.pages.notes import notes_card
from darkit.dashboard.pages.parts import (
    card,
    chart_board,
    code_block,
    command_row,
    duration,
    facts_list,
    moment,
    state_badge,
)
from darkit.dashboard.pages.prompt import prompt_card, takes_input
from darkit.dashboard.pages.settings import settings_panel, settings_table, unprefixed
from darkit.dashboard.pages.strip import run_strip, strip_values
from darkit.dashboard.pages.work import energy_rows, work_rows
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.media import has_media
from darkit.dashboard.reading.sessions import active_seconds, began, resumptions
from darkit.dashboard.reading.tail import Table
from darkit.dashboard.texts import text
from darkit.runs import files
from darkit.runs.checkpoints import list_checkpoints
from darkit.runs.example import example_input
from darkit.runs.names import resume_words
from darkit.runs.roots import is_address
from darkit.runs.run import START_RUN
from darkit.runs.safe import as_dict, read_text
from darkit.runs.status import ALIVE

TABS = (
    *("charts", "media", "overview", "config", "graph", "checkpoints", "machine", "console", "source", "prompt"),
    "notes",
)


def run_page(language: str, run: Shown, state: Mapping[str, Any]) -> list[Component]:
    """Return the page of a run."""
    facts = run.facts
    say = partial(text, language)
    alive = facts.state in ALIVE
    read_only = bool(facts.label)  # of another home
    panels = {
        "charts": [
            chart_controls(language, state, [], columns_of([run]), groups=False),
            chart_board([facts.name], language),
        ],
        "media": [media_board([facts.name], language)],
        "overview": _overview(facts, run.table, language),
        "config": settings_panel(facts, language),
        "graph": [graph_box(facts, language)],
        "checkpoints": [html.Div(checkpoints_card(facts, language), id="checkpoints-box")],
        "machine": [chart_board([facts.name], language, source="system", id="system-charts")],
        "console": [html.Div(console_card(facts, language), id="console-box")],
        "source": _source(facts, language),
        "prompt": [prompt_card(facts, language)],
        "notes": [notes_card(facts, language)],
    }
    absent = {
        "media": not alive and not has_media(facts.folder),
        "graph": not has_graph(facts),
        "prompt": not takes_input(facts),
    }
    shown = [tab for tab in TABS if not absent.get(tab)]
    tabs = dmc.Tabs(
        id="tabs",
        value=state["tab"] if state["tab"] in shown else "charts",
        keepMounted=False,
        children=[
            dmc.TabsList([dmc.TabsTab(say(f"tab_{tab}"), value=tab) for tab in shown], className="tabs-list"),
            *(dmc.TabsPanel(panels[tab], value=tab, pt="md") for tab in shown),
        ],
    )
    return [
        html.Div(
            [
                html.Span(id="run-colour"),
                html.H1(facts.name),
                html.Span(state_badge(facts.state, language), id="run-state"),
                html.Span(className="spacer"),
                html.Button(
                    say("stop"), id="stop", className="small-button danger", hidden=not alive, disabled=read_only
                ),
                html.Button(say("delete"), id="delete", className="small-button", hidden=alive, disabled=read_only),
            ],
            className="toolbar",
        ),
        run_strip(run, language),
        html.P(id="gone", className="warning", hidden=True),
        html.Div(run_ending(facts, run, language), id="run-ending"),
        tabs,
        stop_dialog(language),
        delete_dialog(language),
    ]


def add_callbacks(app: Dash, charts: Charts) -> None:
    """Add the callbacks of the tabs and of what changes while the run trains."""
    follow(app, "tab", [Input("tabs", "value")], "tabs")

    @app.callback(
        Output("run-ending", "children"),
        Output("checkpoints-box", "children"),
        Output("graph-box", "children"),
        Output("graph-box", "data-known"),
        Output("lineage-box", "children"),
        Output("lineage-box", "data-resumed"),
        Output("commands-box", "children"),
        Input("changed", "data"),
        State("words", "data-language"),
        State("graph-box", "data-known"),
        State("lineage-box", "data-resumed"),
        prevent_initial_call=True,
    )
    def renew(changed: dict[str, Any] | None, language: str, known: Any, resumed: Any) -> tuple[Any, ...]:
        name = (changed or {}).get("name")
        shown = charts.chosen([name], "log") if isinstance(name, str) and is_address(name) else []
        if not shown:  # it is gone, and the page says so
            return (no_update,) * 7
        facts = shown[0].facts
        graph = new_graph(facts, language) if known == "" else None  # it is written once
        drawn = (no_update, no_update) if graph is None else (graph, "1")
        again = _resumed(facts)
        lineage = (no_update, again) if again == resumed else (lineage_card(facts, language), again)
        ended = (run_ending(facts, shown[0], language), checkpoints_card(facts, language))
        return *ended, *drawn, *lineage, _commands_card(facts, language)

    @app.callback(
        Output("strip-values", "children"),
        Output("environment-box", "children"),
        Output("evaluations-box", "children"),
        Input("grown", "data"),
        State("selection", "data"),
        State("words", "data-language"),
        prevent_initial_call=True,
    )
    def renew_values(_: Any, names: Any, language: str) -> tuple[Any, ...]:
        found = [
            name
            for name in (names if isinstance(names, list) else [])[:1]
            if isinstance(name, str) and is_address(name)
        ]
        shown = charts.chosen(found, "log")
        if not shown:
            return (no_update,) * 3
        run = shown[0]
        values = (strip_values(run, language), _environment(run.facts, run.table, language))
        return *values, evaluations(run.facts, language)


def commands(facts: Facts, language: str) -> list[tuple[str, str]]:
    """Return commands to copy: the purpose and the command line of each."""
    name = shlex.quote(facts.folder.name)
    recorded = facts.info.get("command")
    words = recorded if isinstance(recorded, list) and all(isinstance(word, str) for word in recorded) else []
    found = [("cmd_recorded", shlex.join(words))] if words else []
    if as_dict(facts.info.get("origin")):  # it has no model and no checkpoint
        found.append(("cmd_export", f"darkit export {name} --format csv"))
        return [(text(language, key), readable(command)) for key, command in found]
    if words:  # without them there is nothing to run again
        found.append(("cmd_reproduce", f"darkit reproduce {name}"))
    found.append(("cmd_resume", _resume_command(facts)))
    if fork := _fork_command(facts):
        found.append(("cmd_fork", fork))
    found.append(("cmd_predict", f"darkit predict {name} {example_input(facts.folder, facts.info)}"))
    found.append(("cmd_verify", f"darkit verify {name}"))
    if (facts.folder / files.TENSORBOARD).is_dir():
        found.append(("cmd_tensorboard", f"tensorboard --logdir {shlex.quote(str(facts.folder / files.TENSORBOARD))}"))
    return [(text(language, key), readable(command)) for key, command in found]


def _fork_command(facts: Facts) -> str:
    """Return how to fork a run of ``darkit train`` from its last checkpoint; empty where that is not possible."""
    whole = [one for one in list_checkpoints(facts.folder) if one.has_optimizer and not one.problem]
    if not whole or not (facts.folder / files.COMPOSED_CONFIG).is_file():
        return ""
    step, last = max(whole, key=lambda one: (one.verified, one.step)).step, facts.status.max_step
    more = f" trainer.max_step={2 * last}" if last and step >= last else ""
    return f"darkit train fork={shlex.quote(f'{facts.folder.name}:iter-{step}')} name=NEW{more}"


def _resume_command(facts: Facts) -> str:
    """Return how to resume a run; a finished one needs a later end."""
    later = 2 * facts.status.max_step if facts.state == "finished" and facts.status.max_step else None
    if facts.info.get("made_by") == START_RUN:
        more = f", max_step={later}" if later else ""
        return f"darkit.start_run({facts.folder.name!r}, resume=True{more})"
    if not (facts.folder / files.COMPOSED_CONFIG).is_file():  # started from Python, which has its model and data
        more = f", max_step={later}" if later else ""
        return f"darkit.fit(model, data, name={facts.folder.name!r}, resume=True{more})"
    return f"darkit train {resume_words(facts.folder.name)}" + (f" trainer.max_step={later}" if later else "")


def _overview(facts: Facts, table: Table, language: str) -> list[Component]:
    """Return the tab of what was recorded; callbacks renew the boxes of what changes while the run trains."""
    git, data = as_dict(facts.info.get("git")), as_dict(facts.info.get("data"))
    changed = {
        key.removeprefix("data."): was for key, was in changed_settings(facts).items() if key.startswith("data.")
    }
    resumed = {"data-resumed": _resumed(facts)}
    return [
        html.Div(lineage_card(facts, language), id="lineage-box", **resumed),
        html.Div(_commands_card(facts, language), id="commands-box"),
        card(
            text(language, "environment"),
            html.Div(_environment(facts, table, language), id="environment-box"),
            *([folded("git_diff", str(git["diff"]), language)] if git.get("diff") else []),
        ),
        html.Div(evaluations(facts, language), id="evaluations-box"),
        card(text(language, "data"), settings_table(unprefixed(data), language, changed=changed)),
    ]


def _resumed(facts: Facts) -> str:
    return str(len(resumptions(facts)))


def _commands_card(facts: Facts, language: str) -> Component:
    return card(text(language, "commands"), *(command_row(*one, language) for one in commands(facts, language)))


def _environment(facts: Facts, table: Table, language: str) -> Component:
    say = partial(text, language)
    status, info = facts.status, facts.info
    seconds = active_seconds(facts, table)
    host, git, versions, origin = (as_dict(info.get(key)) for key in ("host", "git", "versions", "origin"))
    return facts_list(
        [
            (say("col_model"), readable(str(facts.model))),
            *work_rows(facts, table, language),
            *energy_rows(facts, language),
            (say("imported"), readable(f"{origin.get('kind')}: {origin.get('path')}") if origin else ""),
            (say("began"), moment(began(facts))),
            (say("last_beat"), moment(status.heartbeat)),
            (say("col_duration"), duration(seconds) if seconds is not None else None),
            (say("host"), readable(f"{status.host or host.get('name', '')} {host.get('system', '')}".strip())),
            (say("process"), str(status.pid) if status.pid else ""),
            (say("folder"), html.Code(readable(str(facts.folder)))),
            (say("seed"), readable(str(info.get("seed", "")))),
            (say("versions"), readable(", ".join(f"{name} {number}" for name, number in versions.items()))),
            (say("git_commit"), html.Code(readable(str(git["commit"]))) if git.get("commit") else ""),
        ]
    )


def _source(facts: Facts, language: str) -> list[Component]:
    source = readable(read_text(facts.folder / files.MODEL_SOURCE))
    nothing = html.P(text(language, "no_source"), className="muted")
    return [card(text(language, "model_source"), code_block(source, language, tall=True) if source else nothing)]
