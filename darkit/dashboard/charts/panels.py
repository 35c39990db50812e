"""Which charts a page has: their order, their sections, and the series that share one chart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.machine import machine_place
from darkit.dashboard.reading.series import by_rank, declared_series, in_order
from darkit.dashboard.view import View

_LAST_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$", re.DOTALL)
_SECTION = re.compile(r"[/.]")
_MOST_TOGETHER = 64  # curves in the chart of a family, which nobody would tell apart beyond that
_FEWEST_SECTION = 2  # charts of a section of its own


@dataclass(frozen=True)
class Panel:
    """One chart of a page.

    Attributes:
        id: Its name in requests and addresses: that of its series, or of its family, such as ``firing_rate_*``.
        members: The series that it shows.
        section: The prefix that it shares with others, or empty.
        family: Whether its members share it because their names differ in a number only.
    """

    id: str
    members: tuple[str, ...]
    section: str = ""
    family: bool = False


def titles_of(shown: Sequence[Shown]) -> list[str]:
    """Return the series of all runs, each once.

    Those that a run declares come first, the others in their order; of both, those of an evaluation before the rest and
    learning rates last. A declared series without any value comes at the end.
    """
    filled = _filled(shown)
    declared = dict.fromkeys(name for run in shown for name in declared_series(run.facts.series) if name in run.series)
    others = in_order({name for run in shown for name in run.series} - declared.keys())
    every = [*by_rank(declared), *others]
    return [*(name for name in every if name in filled), *(name for name in every if name not in filled)]


def filled_titles(shown: Sequence[Shown]) -> list[str]:
    """Return the series of the logs that have a value, in the order of `titles_of`."""
    filled = _filled(shown)
    evaluated = {name for run in shown for name in run.evaluated}
    return [name for name in titles_of(shown) if name in filled and name not in evaluated]


def _filled(shown: Sequence[Shown]) -> set[str]:
    """Return the series of which any run has a value."""
    found: set[str] = set()
    for run in shown:
        columns = run.filled  # once: it looks at every column
        found |= {name for name, (_, y) in run.series.items() if y in columns}
    return found


def panels_of(shown: Sequence[Shown], view: View) -> list[Panel]:
    """Return the charts of a page in their order.

    Series whose names differ only in their last number share a chart, unless the view has it ``apart`` or it would have
    too many curves; those that the view has ``joined`` share one at the place of the first of them.
    """
    titles = titles_of(shown) if view.source == "log" else sorted(titles_of(shown), key=machine_place)
    known = set(titles)
    joined = [kept for one in view.joined if len(kept := tuple(name for name in one if name in known)) > 1]
    together = {name: Panel(" + ".join(one), one) for one in joined for name in one}
    most = _MOST_TOGETHER if view.group else _MOST_TOGETHER // max(1, len(shown))  # groups are few, whatever their size
    families = _families([name for name in titles if name not in together], view, most) if view.source == "log" else {}
    panels = dict.fromkeys(together.get(name) or families.get(name) or Panel(name, (name,)) for name in titles)
    return _in_sections(list(panels))


def _families(titles: Sequence[str], view: View, most: int) -> dict[str, Panel]:
    """Return the chart of every series that shares one with others of its family, of at most so many members."""
    members: dict[str, list[str]] = {}
    for title in titles:
        parts = _LAST_NUMBER.match(title)
        if parts:
            members.setdefault(f"{parts[1]}*{parts[3]}", []).append(title)
    found = {
        id: Panel(id, tuple(in_order(names)), family=True)
        for id, names in members.items()
        if 1 < len(names) <= most and id not in titles and id not in view.apart
    }
    return {name: panel for panel in found.values() for name in panel.members}


def _in_sections(panels: Sequence[Panel]) -> list[Panel]:
    """Name the section of each chart that shares a prefix with another one; those without a section come first."""
    prefixes = [_prefix(panel) for panel in panels]
    counts = Counter(prefixes)
    placed = [
        Panel(panel.id, panel.members, prefix if counts[prefix] >= _FEWEST_SECTION else "", panel.family)
        for panel, prefix in zip(panels, prefixes, strict=True)
    ]
    order = {section: place for place, section in enumerate(dict.fromkeys(["", *(one.section for one in placed)]))}
    return sorted(placed, key=lambda panel: order[panel.section])


def _prefix(panel: Panel) -> str:
    parts = _SECTION.split(panel.members[0], maxsplit=1)
    return parts[0] if len(parts) > 1 else ""


def columns_of(shown: Sequence[Shown]) -> list[str]:
    """Return the columns of the logs of all runs that can be an x-axis, beside those that are one already."""
    filled = {readable(name) for run in shown for name in run.table.filled}
    return in_order(filled - {"step", "epoch", "time"})
