"""The page of one run: its charts and everything that was recorded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts, Shown
from darkit.dashboard.pages.actions import delete_dialog, stop_dialog
from darkit.dashboard.pages.checkpoints import checkpoints_card
from darkit.dashboard.pages.controls import chart_controls, follow
from darkit.dashboard.pages.evaluations import evaluations
from darkit.dashboard.pages.mantine import dmc
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
    values_table,
)
from darkit.dashboard.reading.facts import Facts, flatten, readable
from darkit.dashboard.reading.tokenizers import tokenizer_facts
from darkit.dashboard.texts import text
from darkit.runs import files
from darkit.runs.checkpoints import list_checkpoints
from darkit.runs.console import read_console
from darkit.runs.example import example_input, has_tokenizer
from darkit.runs.names import resume_words
from darkit.runs.roots import is_address
from darkit.runs.run import START_RUN
from darkit.runs.safe import as_dict, read_text
from darkit.runs.status import ALIVE

TABS = ("charts", "overview", "config", "checkpoints", "machine", "console", "source", "prompt", "notes")
_CONSOLE = 100_000  # bytes of the end of the console that a page shows
_MOST_PROBLEMS = 10  # of an import


def run_page(language: str, run: Shown, state: Mapping[str, Any]) -> list[Component]:
    """Return the page of a run."""
    facts = run.facts
    say = partial(text, language)
    alive = facts.state in ALIVE
    read_only = bool(facts.label)  # of another home
    panels = {
        "charts": [chart_controls(language, state, [], groups=False), chart_board([facts.name], language)],
        "overview": _overview(facts, language),
        "config": _config(facts, language),
        "checkpoints": [html.Div(checkpoints_card(facts, language), id="checkpoints-box")],
        "machine": [chart_board([facts.name], language, source="system", id="system-charts")],
        "console": [html.Div(_console(facts, language), id="console-box")],
        "source": _source(facts, language),
        "prompt": [_prompt(facts, language)],
        "notes": [notes_card(facts, language)],
    }
    tabs = dmc.Tabs(
        id="tabs",
        value=state["tab"] if state["tab"] in TABS else "charts",
        keepMounted=False,
        children=[
            dmc.TabsList([dmc.TabsTab(say(f"tab_{tab}"), value=tab) for tab in TABS], className="tabs-list"),
            *(dmc.TabsPanel(content, value=tab, pt="md") for tab, content in panels.items()),
        ],
    )
    return [
        html.Div(
            [
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
        html.Div(
            [
                html.Div(html.Div(className="progress-fill", style=_width(facts)), className="progress"),
                html.Span(_steps(facts), className="progress-text"),
                html.Span(className="pace"),
            ],
            className="run-progress",
            id="run-progress",
        ),
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
        Output("console-box", "children"),
        Input("changed", "data"),
        State("words", "data-language"),
        State("tabs", "value"),
        prevent_initial_call=True,
    )
    def renew(changed: dict[str, Any] | None, language: str, tab: str) -> tuple[Any, Any, Any]:
        name = (changed or {}).get("name")
        shown = charts.chosen([name], "log") if isinstance(name, str) and is_address(name) else []
        if not shown:  # it is gone, and the page says so
            return no_update, no_update, no_update
        facts = shown[0].facts
        printed = _console(facts, language) if tab == "console" else no_update
        return run_ending(facts, shown[0], language), checkpoints_card(facts, language), printed


def commands(facts: Facts, language: str) -> list[tuple[str, str]]:
    """Return commands to copy: the purpose and the command line of each."""
    name = shlex.quote(facts.folder.name)
    recorded = facts.info.get("command")
    words = recorded if isinstance(recorded, list) and all(isinstance(word, str) for word in recorded) else []
    found = [("cmd_reproduce", shlex.join(words))] if words else []
    if as_dict(facts.info.get("origin")):  # it has no model and no checkpoint
        found.append(("cmd_export", f"darkit export {name} --format csv"))
        return [(text(language, key), readable(command)) for key, command in found]
    found.append(("cmd_resume", _resume_command(facts)))
    found.append(("cmd_predict", f"darkit predict {name} {example_input(facts.folder, facts.info)}"))
    found.append(("cmd_verify", f"darkit verify {name}"))
    if (facts.folder / files.TENSORBOARD).is_dir():
        found.append(("cmd_tensorboard", f"tensorboard --logdir {shlex.quote(str(facts.folder / files.TENSORBOARD))}"))
    return [(text(language, key), readable(command)) for key, command in found]


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


def _width(facts: Facts) -> dict[str, str]:
    status = facts.status
    done = status.step / status.max_step if status.max_step and status.max_step > 0 else 0
    return {"width": f"{100 * min(1, max(0, done)):.1f}%"}


def _steps(facts: Facts) -> str:
    status = facts.status
    return f"{status.step:,} / {status.max_step:,}" if status.max_step else f"{status.step:,}"


def run_ending(facts: Facts, run: Shown, language: str) -> list[Component]:
    """Return how a run ended: problem, reason and traceback."""
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
    left_out = as_dict(facts.info.get("origin")).get("problems")
    for sentence in left_out[:_MOST_PROBLEMS] if isinstance(left_out, list) else []:
        parts.append(html.P([html.B(text(language, "left_out")), ": ", readable(str(sentence))], className="remark"))
    if facts.status.traceback:
        parts.append(_folded("traceback", facts.status.traceback, language))
    return parts


def _folded(title: str, content: str, language: str) -> Component:
    return html.Details([html.Summary(text(language, title)), code_block(readable(content), language, tall=True)])


def _overview(facts: Facts, language: str) -> list[Component]:
    say = partial(text, language)
    status, info = facts.status, facts.info
    lasted = duration(status.heartbeat - status.started) if 0 < status.started <= status.heartbeat else None
    host, git, versions, data = (as_dict(info.get(key)) for key in ("host", "git", "versions", "data"))
    origin = as_dict(info.get("origin"))
    return [
        card(say("commands"), *(command_row(*command, language) for command in commands(facts, language))),
        card(
            say("environment"),
            facts_list(
                [
                    (say("col_model"), readable(str(facts.model))),
                    (say("imported"), readable(f"{origin.get('kind')}: {origin.get('path')}") if origin else ""),
                    (say("began"), moment(status.started)),
                    (say("last_beat"), moment(status.heartbeat)),
                    (say("col_duration"), lasted),
                    (say("host"), readable(f"{status.host or host.get('name', '')} {host.get('system', '')}".strip())),
                    (say("process"), str(status.pid) if status.pid else ""),
                    (say("folder"), html.Code(readable(str(facts.folder)))),
                    (say("seed"), readable(str(info.get("seed", "")))),
                    (say("versions"), readable(", ".join(f"{name} {number}" for name, number in versions.items()))),
                    (say("git_commit"), html.Code(readable(str(git["commit"]))) if git.get("commit") else ""),
                ]
            ),
            *([_folded("git_diff", str(git["diff"]), language)] if git.get("diff") else []),
        ),
        *evaluations(facts, language),
        card(say("data"), values_table(_unprefixed(data), language)),
    ]


def _config(facts: Facts, language: str) -> list[Component]:
    say = partial(text, language)
    composed = read_text(facts.folder / files.COMPOSED_CONFIG)
    parts = [card(say("model_config"), values_table(_unprefixed(facts.config), language))]
    tokenizer = tokenizer_facts(facts.folder)
    if tokenizer is not None:
        known = [("tok_kind", tokenizer.kind), ("tok_size", f"{tokenizer.size:,}"), ("tok_special", tokenizer.special)]
        parts.append(card(say("tokenizer"), facts_list([(say(key), readable(value)) for key, value in known])))
    trainer = card(say("trainer_config"), values_table(_unprefixed(facts.trainer), language))
    both: list[Component] = [html.Div([html.Div(parts), trainer], className="side-by-side")]
    if composed:
        both.append(card(say("composed_config"), code_block(readable(composed), language, tall=True)))
    return both


def _console(facts: Facts, language: str) -> list[Component]:
    """Return the end of what the run's process printed, as text."""
    say = partial(text, language)
    printed = read_console(facts.folder, _CONSOLE)
    if not printed:
        return [card(say("tab_console"), html.P(say("no_console"), className="muted"))]
    command = command_row(say("console_all"), f"darkit show {shlex.quote(facts.folder.name)} --console", language)
    return [card(say("tab_console"), code_block(readable(printed), language, tall=True), command)]


def _source(facts: Facts, language: str) -> list[Component]:
    source = readable(read_text(facts.folder / files.MODEL_SOURCE))
    nothing = html.P(text(language, "no_source"), className="muted")
    return [card(text(language, "model_source"), code_block(source, language, tall=True) if source else nothing)]


def _prompt(facts: Facts, language: str) -> Component:
    say = partial(text, language)
    if not has_tokenizer(facts.folder):
        return card(say("tab_prompt"), html.P(say("prompt_none"), className="muted"))
    names = [checkpoint.name for checkpoint in reversed(list_checkpoints(facts.folder))]
    other = bool(facts.label)  # a home that is only read
    return card(
        say("tab_prompt"),
        dmc.Textarea(
            id="prompt",
            placeholder=say("prompt_hint"),
            autosize=True,
            minRows=3,
            maxRows=16,
            value="",
            **{"aria-label": say("prompt")},
        ),
        html.Div(
            [
                dmc.NumberInput(
                    id="prompt-tokens", label=say("prompt_tokens"), value=100, min=1, max=2000, size="xs", w=130
                ),
                dmc.NumberInput(
                    id="prompt-temperature",
                    label=say("prompt_temperature"),
                    value=0.8,
                    min=0,
                    max=10,
                    step=0.1,
                    size="xs",
                    w=130,
                ),
                dmc.Select(
                    id="prompt-checkpoint",
                    label=say("ckpt_name"),
                    data=[{"value": "", "label": say("latest")}] + [{"value": name, "label": name} for name in names],
                    value="",
                    allowDeselect=False,
                    size="xs",
                    w=190,
                ),
                html.Button(say("prompt_send"), id="prompt-send", className="small-button primary", disabled=other),
                html.Button(say("prompt_stop"), id="prompt-stop", className="small-button", hidden=True),
            ],
            className="controls end",
        ),
        html.Pre(
            id="prompt-answer",
            className="code answer",
            role="status",
            tabIndex=0,
            **{"aria-label": say("prompt_answer")},
        ),
    )


def _unprefixed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("."): value for key, value in flatten(values, "").items()} if values else {}
