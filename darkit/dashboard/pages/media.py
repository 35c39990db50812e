"""The place where the page's script shows the media of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.texts import text


def media_board(names: Sequence[str], language: str) -> Component:
    """Return the place of the media of runs, those of several side by side."""
    return html.Div(
        [
            dmc.Switch(id="link-steps", label=text(language, "link_steps"), checked=False, size="xs", mb="xs"),
            html.P(className="media-message muted", role="status"),
            html.Div(className="media-grid"),
        ],
        className="media-board",
        **{"data-runs": json.dumps(list(names))},
    )
