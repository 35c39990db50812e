"""The graph of a run's model, traced on an example input made of what the run recorded."""

from __future__ import annotations

from typing import Any

import torch

from darkit.engine.description.graph import trace_modules
from darkit.engine.metrics.undisturbed import evaluating
from darkit.errors import ConfigError, DarkitError
from darkit.prediction.exporting.examples import Layout, find_layout, in_precision
from darkit.prediction.exporting.loading import load_predicter
from darkit.prediction.exporting.traced import quiet
from darkit.runs import Run
from darkit.runs.graph import Node

_ROWS = 2  # of the example batch


def graph_of(run: Run, wanted: str | None = None) -> list[Node]:
    """Return the modules of a run's model that an example input goes through.

    Args:
        run: The run.
        wanted: Its checkpoint; None for the latest one.

    Raises:
        ConfigError: The model cannot be built, or nothing is known of its input.
    """
    try:
        model = load_predicter(run, wanted).model

        def call(layout: Layout) -> tuple[dict[str, Any], Any]:
            batch = in_precision(model, layout.make(_ROWS))
            return batch, layout.call(model, batch)

        with quiet(), evaluating(model), torch.no_grad():
            layout = find_layout(run, model, call)
            batch = in_precision(model, layout.make(_ROWS))
            return trace_modules(model, lambda: layout.call(model, batch), batch)
    except DarkitError as error:
        reason = str(error).partition(" Use --format")[0]
        raise ConfigError(f"The graph of {run.name!r} cannot be drawn: {reason}") from error
