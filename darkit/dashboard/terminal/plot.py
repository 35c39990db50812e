"""A chart of characters: Unicode's braille patterns, whose 2 x 4 dots are the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from darkit.dashboard.charts.downsample import pick
from darkit.dashboard.reading.columns import Flags, Numbers
from darkit.runs.numbers import number_text

Whole = NDArray[np.int64]

_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of the dots in a character (rows, columns)
_EMPTY = 0x2800  # the character without dots
_LABELS = 10  # columns of the numbers on the left
_FEWEST_COLUMNS, _FEWEST_ROWS = 10, 3


@dataclass(frozen=True)
class Drawn:
    """A curve to draw: finite x and y (points,), and the colour of its line."""

    x: Numbers
    y: Numbers
    colour: str


def draw(curves: Sequence[Drawn], width: int, height: int, *, log: bool = False, x_title: str = "step") -> Text:
    """Draw curves, the first above the others; empty where there is no room or nothing to draw.

    Args:
        curves: The curves.
        width: Columns of the terminal.
        height: Its rows.
        log: Whether y is logarithmic; values that are not positive are left out.
        x_title: The name of the x-axis.
    """
    across, up = width - _LABELS - 1, height - 1
    curves = [_positive(curve) for curve in curves] if log else list(curves)
    curves = [curve for curve in curves if len(curve.x)]
    if across < _FEWEST_COLUMNS or up < _FEWEST_ROWS or not curves:
        return Text()
    left, right = _ends([curve.x for curve in curves])
    low, high = _ends([curve.y for curve in curves])
    dots = np.zeros((up * 4, across * 2), dtype=bool)
    owner = np.full((up, across), -1, dtype=np.int64)
    for index in reversed(range(len(curves))):
        curve = curves[index]
        some = pick(curve.x, curve.y, 4 * across)
        rows, columns = _line(
            np.rint((1 - _scaled(curve.y[some], low, high)) * (up * 4 - 1)),
            np.rint(_scaled(curve.x[some], left, right) * (across * 2 - 1)),
        )
        dots[rows, columns] = True
        owner[rows // 4, columns // 2] = index
    return _text(dots, owner, [curve.colour for curve in curves], _marks(low, high, up, log), (left, right, x_title))


def _positive(curve: Drawn) -> Drawn:
    kept = curve.y > 0
    return Drawn(curve.x[kept], np.log10(curve.y[kept]), curve.colour)


def _ends(values: Sequence[Numbers]) -> tuple[float, float]:
    return min(float(one.min()) for one in values), max(float(one.max()) for one in values)


def _scaled(values: Numbers, low: float, high: float) -> Numbers:
    """Return where values are between two others, from 0 to 1; in the middle if these are the same."""
    if not high > low:
        return np.full(len(values), 0.5)
    return values / 2 / (high / 2 - low / 2) - low / 2 / (high / 2 - low / 2)  # the difference may be too large


def _line(rows: Numbers, columns: Numbers) -> tuple[Whole, Whole]:
    """Return the dots of lines from each point to the next, by their rows and columns (dots,)."""
    steps = np.maximum(np.abs(np.diff(rows)), np.abs(np.diff(columns))).astype(np.int64)
    all_rows, all_columns = [rows[:1]], [columns[:1]]
    for place in np.flatnonzero(steps):
        shares = np.arange(1, steps[place] + 1) / steps[place]
        all_rows.append(rows[place] + shares * (rows[place + 1] - rows[place]))
        all_columns.append(columns[place] + shares * (columns[place + 1] - columns[place]))
    return _whole(all_rows), _whole(all_columns)


def _whole(parts: Sequence[Numbers]) -> Whole:
    return np.rint(np.concatenate(parts)).astype(np.int64)


def _marks(low: float, high: float, up: int, log: bool) -> dict[int, str]:
    """Return the numbers at the top, the middle and the bottom of the y-axis by their rows."""
    share = ((up - 1) // 2) / (up - 1)
    places = {0: high, (up - 1) // 2: high * (1 - share) + low * share, up - 1: low}
    return {row: number_text(10**value if log else value, 4)[:_LABELS] for row, value in places.items()}


def _text(
    dots: Flags,
    owner: Whole,
    colours: Sequence[str],
    marks: dict[int, str],
    bottom: tuple[float, float, str],
) -> Text:
    up, across = owner.shape
    cells = (dots.reshape(up, 4, across, 2) * _BITS[None, :, None, :]).sum(axis=(1, 3)) + _EMPTY
    text = Text(no_wrap=True, end="")
    for row in range(up):
        text.append(f"{marks.get(row, ''):>{_LABELS}}│", "dim")
        start = 0
        for column in range(1, across + 1):
            if column == across or owner[row, column] != owner[row, start]:
                style = colours[owner[row, start]] if owner[row, start] >= 0 else ""
                text.append("".join(map(chr, cells[row, start:column].tolist())), style)
                start = column
        text.append("\n")
    left, right, title = number_text(bottom[0], 6), number_text(bottom[1], 6), bottom[2]
    middle = max(0, across - len(left) - len(right))
    text.append(f"{'':>{_LABELS}}└{left}{title[: max(0, middle - 2)]:^{middle}}{right}", "dim")
    return text
