"""Progress in a notebook: a cell output with a bar and loss curves, redrawn in place."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

_MOST_POINTS = 400  # per curve; beyond that, every second point is dropped
_LARGEST = 1e300  # differences of larger values overflow
_WIDTH, _HEIGHT = 480, 120  # pixels of the chart
_COLOURS = {"train_loss": "#1f77b4", "val_loss": "#ff7f0e"}
_BAR = (
    '<div style="width:{width}px;height:8px;background:#8884;border-radius:4px">'
    '<div style="width:{done:.1f}%;height:8px;background:#1f77b4;border-radius:4px"></div></div>'
)


def in_notebook() -> bool:
    """Return whether this process is a notebook kernel."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


class Curve:
    """The points of one series, thinned out as their number grows.

    Attributes:
        points: Pairs of step and value; values are finite.
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._every = 1
        self._seen = 0

    def add(self, step: float, value: float) -> None:
        """Add a point, unless it is not finite."""
        if not (math.isfinite(step) and abs(value) < _LARGEST):
            return
        if self._seen % self._every == 0:
            self.points.append((step, value))
        self._seen += 1
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[::2]
            self._every *= 2


class NotebookView:
    """The cell output that shows the progress of a training.

    Args:
        max_step: The step at which the run ends, or None if it is not known.

    Attributes:
        max_step: The same; it may be set later.
    """

    def __init__(self, max_step: int | None) -> None:
        self.max_step = max_step
        self._curves: dict[str, Curve] = {}
        self._id = uuid.uuid4().hex
        self._begun = False

    def add(self, step: object, values: Mapping[str, float]) -> None:
        """Add the losses of a step."""
        for name, value in values.items():
            if isinstance(step, int | float):
                self._curves.setdefault(name, Curve()).add(float(step), float(value))

    def show(self, step: int, parts: Sequence[str]) -> None:
        """Show or update the output.

        Args:
            step: The last completed step.
            parts: Further text: losses, rate, time left.
        """
        display: Any = import_module("IPython.display").display  # of the running kernel
        text = "  ".join([f"step {step}" if self.max_step is None else f"step {step}/{self.max_step}", *parts])
        bundle = {"text/plain": text, "text/html": self._html(step, text)}
        display(bundle, raw=True, display_id=self._id, update=self._begun)
        self._begun = True

    def _html(self, step: int, text: str) -> str:
        done = 100 * min(1.0, step / self.max_step) if self.max_step else 100.0
        bar = "" if self.max_step is None else _BAR.format(width=_WIDTH, done=done)
        return f"<div><code>{escape(text)}</code>{bar}{chart(self._curves)}</div>"


def chart(curves: Mapping[str, Curve]) -> str:
    """Draw curves as SVG; empty while no curve has two points."""
    drawn = {name: curve.points for name, curve in curves.items() if len(curve.points) > 1}
    if not drawn:
        return ""
    every = [point for points in drawn.values() for point in points]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    across, up = _WIDTH / ((right - left) or 1.0), _HEIGHT / ((high - low) or 1.0)
    parts = [f'<svg width="{_WIDTH}" height="{_HEIGHT + 20}" viewBox="0 -4 {_WIDTH} {_HEIGHT + 24}" role="img">']
    for name, points in drawn.items():
        line = " ".join(f"{(x - left) * across:.1f},{_HEIGHT - (y - low) * up:.1f}" for x, y in points)
        colour = _COLOURS.get(name, "#888")
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{line}"/>')
    legend = "  ".join(f'<tspan fill="{_COLOURS.get(name, "#888")}">{escape(name)}</tspan>' for name in drawn)
    parts.append(f'<text x="0" y="{_HEIGHT + 16}" font-size="11">{legend}')
    parts.append(f' <tspan fill="currentColor">{low:.4g} to {high:.4g}</tspan></text></svg>')
    return "".join(parts)
