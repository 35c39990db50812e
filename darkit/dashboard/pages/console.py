"""The place where the page's script shows what a run's process prints."""

from __future__ import annotations

import shlex

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.parts import card, command_row
from darkit.dashboard.reading.facts import Facts
from darkit.dashboard.texts import text


def console_card(facts: Facts, language: str) -> Component:
    """Return the place of the console, which the page's script fills, searches and follows."""
    command = f"darkit show {shlex.quote(facts.folder.name)} --console"
    view = html.Div(className="console-view", **{"data-run": facts.name})
    return card(text(language, "tab_console"), view, command_row(text(language, "console_all"), command, language))
