"""The frame of every page: the bar at the top, and the place of messages."""

from __future__ import annotations

import json
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.texts import LANGUAGES, text

_THEME = {
    "primaryColor": "indigo",
    "defaultRadius": "md",
    "fontFamily": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', sans-serif",
    "fontFamilyMonospace": "ui-monospace, 'SFMono-Regular', Menlo, Consolas, 'Noto Sans Mono', monospace",
}


def frame() -> Component:
    """Return the part of the document that stays when the page changes."""
    return dmc.MantineProvider(
        theme=_THEME,
        defaultColorScheme="auto",
        children=[
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="selection", data=[]),
            *(
                dcc.Store(id=name)
                for name in ("address", "language", "mounted", "viewed", "changed", "grown", "undo", "restore")
            ),
            dmc.NotificationContainer(id="notify", position="bottom-right", autoClose=5000),
            html.Div(id="page"),
        ],
    )


def page(language: str, content: Any, *, wide: bool = False) -> list[Component]:
    """Return a whole page: the bar, the content and the texts of the page's scripts."""
    other = "zh" if language == "en" else "en"
    bar = html.Section(
        [
            html.A("darkit", href="/", className="brand inner-link"),
            html.Nav(html.A(text(language, "runs"), href="/", className="inner-link")),
            html.Span(className="spacer"),
            html.Button(
                {"en": "EN", "zh": "中文"}[other],
                id="switch-language",
                className="bar-button",
                lang=other,
                title=text(other, "this_language"),
                **{"data-language": other, "aria-label": text(other, "this_language")},
            ),
            html.Button(
                html.Span(className="bell"),
                id="notices",
                className="bar-button",
                hidden=True,
                **{"aria-label": text(language, "notices"), "aria-pressed": "false"},
            ),
            dmc.ColorSchemeToggle(
                lightIcon=html.Span("☀", className="icon"),
                darkIcon=html.Span("☾", className="icon"),
                variant="subtle",
                size="md",
                **{"aria-label": text(language, "colours")},
            ),
        ],
        className="bar",
        **{"aria-label": "darkit"},
    )
    words = json.dumps(LANGUAGES[language], ensure_ascii=False)
    return [
        bar,
        html.Div(text(language, "offline"), id="offline", role="alert", hidden=True),
        html.Div(id="homes", role="status", hidden=True),
        html.Main(content, className="page wide" if wide else "page"),
        html.Div(id="words", hidden=True, **{"data-words": words, "data-language": language}),
    ]


def lost(language: str, sentence: str) -> list[Component]:
    """Return what is shown instead of a page that does not exist."""
    return [
        html.Div(
            [html.H1(sentence), html.A(text(language, "to_runs"), href="/", className="inner-link")],
            className="card empty",
        )
    ]
