"""Colours and dashes of curves: a run has the same on every page, unless another run of the page has it already."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

PALETTE = (
    "#828cfa", "#e67800", "#14aa5a", "#dc0a28", "#8c3cfa", "#786e64", "#d20ab4", "#d278aa",
)  # fmt: skip
"""Eight colours that stand out from a light and a dark ground, and that people who see two colours tell apart."""
DASHES = ("solid", "dash", "dot", "dashdot")


def dash(index: int) -> str:
    """Return the dash of the curve at a place, in plotly's words."""
    return DASHES[index // len(PALETTE) % len(DASHES)]


def colour(index: int) -> str:
    """Return the colour of the curve at a place."""
    return PALETTE[index % len(PALETTE)]


def places_of(names: Sequence[str], chosen: Mapping[str, int]) -> list[int]:
    """Return the place of each name's colour and dash.

    The colour is chosen, or follows from the name alone. Where an earlier name has it already the next free one is
    taken, and once all are taken the next dash; what is chosen keeps its colour and takes the next dash at once.

    Args:
        names: What is drawn on one page.
        chosen: The colours that a person chose, as their places in the palette.
    """
    found: dict[str, int] = {}
    taken: set[int] = set()
    every = len(PALETTE) * len(DASHES)
    for name in [*(name for name in names if name in chosen), *(name for name in names if name not in chosen)]:
        if name in found:
            continue
        wanted = chosen.get(name, zlib.crc32(name.encode()))
        steps = range(1) if name in chosen else range(len(PALETTE))
        colours = [(wanted + step) % len(PALETTE) for step in steps]
        free = [start + one for start in range(0, every, len(PALETTE)) for one in colours]
        found[name] = next((place for place in free if place not in taken), colours[0])
        taken.add(found[name])
        if len(taken) == every:
            taken.clear()
    return [found[name] for name in names]
