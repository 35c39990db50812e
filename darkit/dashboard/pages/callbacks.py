"""What happens on the pages: one function that adds all callbacks to an app."""

from __future__ import annotations

from dash import Dash

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.pages import actions, controls, live
from darkit.dashboard.pages import opening as pages
from darkit.dashboard.reading.library import Library


def add_callbacks(app: Dash, library: Library, charts: Charts) -> None:
    """Adds every callback.

    Args:
        app: Where to.
        library: The runs.
        charts: Their figures.
    """
    pages.add(app, library, charts)
    actions.add(app, library)
    controls.add(app)
    live.add(app, charts)
    controls.add_config_switch(app, charts)
