"""Where a run came from, as a small tree: the runs it was forked from, itself, when it was resumed, and its forks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.parts import card, moment
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.sessions import resumptions
from darkit.dashboard.texts import text
from darkit.errors import DarkitError
from darkit.runs.lineage import ancestors_of, changes_of, forks_of
from darkit.runs.names import check_name
from darkit.runs.safe import as_dict

_MOST_RESUMED = 20
_MOST_ANCESTORS = 20
_MOST_FORKS = 20
_LONGEST = 60  # characters of a setting


def lineage_card(facts: Facts, language: str) -> list[Component]:
    """Return the card of a run's lineage; nothing for a run that is no fork, has none, and was never resumed."""
    say = partial(text, language)
    fork = as_dict(facts.info.get("fork"))
    resumed = resumptions(facts)[-_MOST_RESUMED:]
    forks = forks_of(facts.folder, facts.info.get("id"))
    if not fork and not resumed and not forks:
        return []
    own = [html.B(facts.name)]
    if fork:
        changes = [f"{key} {_short(before)} → {_short(now)}" for key, (before, now) in changes_of(fork).items()]
        differs, same = say("differs_from_parent"), say("differs_in_nothing")
        said = f"{differs}: {readable(', '.join(changes))}" if changes else same
        own.append(html.Div(said, className="muted"))
    if resumed:
        own.append(html.Ul([html.Li([_after(one.after_step, say), moment(one.time)]) for one in resumed]))
    if forks:
        items = [html.Li([_run(name, facts), _start(start)]) for name, start in forks[:_MOST_FORKS]]
        if len(forks) > _MOST_FORKS:
            items.append(html.Li(say("forks_more", count=f"{len(forks) - _MOST_FORKS:,}"), className="muted"))
        own.append(html.Div([html.Span(say("forks_of_it"), className="muted"), html.Ul(items, className="forks")]))
    node = html.Li(own)
    for parent in [fork, *ancestors_of(fork)][:_MOST_ANCESTORS] if fork else []:
        start = str(parent.get("checkpoint") or "")
        node = html.Li([_run(str(parent.get("parent") or ""), facts), _start(start), html.Ul([node])])
    return [card(say("lineage"), html.Ul([node], className="tree"))]


def changed_settings(facts: Facts) -> dict[str, str]:
    """Return the settings in which a fork differs from its parent, each with the value there as text."""
    return {key: _short(before) for key, (before, _) in changes_of(as_dict(facts.info.get("fork"))).items()}


def fork_lines(shown: Sequence[Facts], language: str) -> list[Component]:
    """Return a line for each run that is a fork: of which run and checkpoint, and what differs; or nothing."""
    lines = []
    for facts in shown:
        fork = as_dict(facts.info.get("fork"))
        if not fork:
            continue
        changes = [f"{key} {_short(before)} → {_short(now)}" for key, (before, now) in changes_of(fork).items()]
        start = readable(str(fork.get("checkpoint") or ""))[:_LONGEST].removesuffix("-ckpt")
        said = text(
            language,
            "fork_of",
            name=facts.name,
            parent=f"{readable(str(fork.get('parent') or ''))[:_LONGEST]}:{start}",
            changes=readable(", ".join(changes)) or text(language, "fork_unchanged"),
        )
        lines.append(html.Li(said))
    return [html.Ul(lines, id="forks-compared", className="muted")] if lines else []


def _run(name: str, facts: Facts) -> Component:
    """Return the name of a run beside this one, as a link where it exists."""
    name = readable(name)
    try:
        check_name(name)
    except DarkitError:  # anybody may have written it
        return html.Span(name)
    folder = facts.folder.parent / name
    if not folder.is_dir():
        return html.Span(name)
    address = "/".join(quote(part, safe="") for part in (facts.label, name) if part)
    return html.A(name, href=f"/run/{address}", className="inner-link")


def _start(checkpoint: str) -> Component:
    return html.Span(f" · {readable(checkpoint)[:_LONGEST]}", className="muted")


def _after(step: int | None, say: Callable[..., str]) -> str:
    return f"{say('resumed')} · " if step is None else f"{say('resumed_after', step=f'{step:,}')} · "


def _short(value: Any) -> str:
    shown = readable(str(value))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
