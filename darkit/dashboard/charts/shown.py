"""A run whose curves a page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.reading.facts import Facts
from darkit.dashboard.reading.sessions import Resumption
from darkit.dashboard.reading.tail import Table


@dataclass(frozen=True)
class Shown:
    """A run whose curves are shown.

    Attributes:
        index: The place of its colour and dash.
        facts: Its small files.
        table: Its log.
        series: Its curves, each with its x and y column.
        resumed: When it was resumed.
        evaluated: Those of its curves that are no columns of its log: the steps of checkpoints (points,), and what
            later evaluations of them measured (points,).
    """

    index: int
    facts: Facts
    table: Table
    series: Mapping[str, list[str]]
    resumed: tuple[Resumption, ...] = ()
    evaluated: Mapping[str, tuple[Numbers, Numbers]] = field(default_factory=dict)

    @property
    def filled(self) -> frozenset[str]:
        """The y columns that have a value."""
        return frozenset([*self.table.filled, *self.evaluated])
