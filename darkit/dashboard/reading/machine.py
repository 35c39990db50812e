"""Names and units of the columns of ``system_log.csv`` on the page."""

from __future__ import annotations

import re
from dataclasses import dataclass

from darkit.dashboard.texts import text

_ACCELERATOR = re.compile(r"gpu(\d{1,3})_(use|memory|power|temperature)")
_OF_MACHINE = ("cpu", "memory", "disk_free")
_OF_CARD = ("use", "memory", "power", "temperature")
_GIGABYTE = 1e9  # bytes
_IN_GIGABYTES = ("disk_free", "gpu_memory")
_IN_PERCENT = ("cpu", "memory", "gpu_use")


@dataclass(frozen=True)
class Measure:
    """How one column is shown.

    Attributes:
        title: Its name and unit.
        divisor: The divisor of its values.
        percent: Whether its axis goes from 0 to 100.
    """

    title: str
    divisor: float = 1.0
    percent: bool = False


def measure(column: str, language: str) -> Measure:
    """Return how a column is shown; an unknown one is shown as it is."""
    card = _ACCELERATOR.fullmatch(column)
    key = f"gpu_{card[2]}" if card else column
    if not card and column not in _OF_MACHINE:
        return Measure(column)
    title = text(language, f"machine_{key}", index=card[1] if card else "")
    return Measure(title, _GIGABYTE if key in _IN_GIGABYTES else 1.0, key in _IN_PERCENT)


def machine_place(column: str) -> tuple[int, int, int, str]:
    """Return by what columns are sorted: processor and memory, each accelerator, the disk, and what is unknown."""
    card = _ACCELERATOR.fullmatch(column)
    if card:
        return 1, int(card[1]), _OF_CARD.index(card[2]), column
    known = column in _OF_MACHINE
    return (3 if not known else 2 if column == "disk_free" else 0), 0, _OF_MACHINE.index(column) if known else 0, column
