"""What happens to runs: they end, crash, stall or diverge. Found by comparing two looks at all of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.dashboard.reading.facts import BROKEN
from darkit.dashboard.reading.library import Library
from darkit.runs.status import ALIVE, CRASHED, FINISHED, RUNNING, STALLED, STOPPED

DIVERGED = "diverged"
KINDS = (FINISHED, STOPPED, CRASHED, STALLED, DIVERGED)
_ENDED = (FINISHED, STOPPED, CRASHED)
_KEPT = 200  # events
_MOST_METRICS = 5


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Attributes:
        number: Counts up from 1.
        kind: One of `KINDS`.
        run: The run's address.
        step: Its step; of a run that diverged the first one whose loss is not finite.
        max_step: The step at which it would end, or None.
        reason: Why it ended or stalled, or empty.
        time: When it was noticed, in Unix seconds.
        metrics: The last values of its first metrics: numbers, or the words for NaN and infinities.
        also: Of a run that diverged, how it has ended, or that it stalls, if the same look noticed it; otherwise empty.
        reached: The run's step.
    """

    number: int
    kind: str
    run: str
    step: int
    max_step: int | None
    reason: str
    time: float
    metrics: Mapping[str, float | str]
    also: str = ""
    reached: int = 0


@dataclass(frozen=True)
class _State:
    """What was known of a run at the last look, and whether it has been reported as diverged."""

    state: str
    told: bool


class Events:
    """Notices what happens to the runs of a library from its first look on; runs that start later are new.

    Args:
        library: The runs.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._begin = time.time()
        self._version: int | None = None
        self._seen: dict[Path, _State] = {}
        self._new: dict[float, _State] = {}  # of runs that started later, by their start, which a new name leaves
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._count = 0
        self._lock = threading.Lock()

    def look(self) -> None:
        """Look at all runs, and keep what has happened since the last look; the first one only remembers them."""
        with self._lock:
            version, entries = self._library.entries()
            before = self._version
            for entry in entries:
                if before is not None and entry.version <= before:
                    continue
                row, known = entry.row, self._seen.get(entry.folder)
                if known is None and before is not None and entry.began >= self._begin:
                    known = self._new.get(entry.began, _State(RUNNING, told=False))  # it may have ended already
                now = _State(row["state"], row["diverged"] is not None or bool(known and known.told))
                self._seen[entry.folder] = now
                if entry.began >= self._begin:
                    self._new[entry.began] = now
                if known is not None:
                    kinds = _changes(known, row)
                    if kinds:
                        self._events.append(self._event(kinds, row))
            if len(self._seen) > len(entries):
                there = {entry.folder for entry in entries}
                self._seen = {folder: state for folder, state in self._seen.items() if folder in there}
            self._version = version

    def since(self, number: int | None) -> tuple[int, list[Event]]:
        """Return the number of the last event, and the events after one; None asks for none of them."""
        with self._lock:
            after = self._count if number is None else number
            return self._count, [event for event in self._events if event.number > after]

    def _event(self, kinds: Sequence[str], row: Mapping[str, Any]) -> Event:
        self._count += 1
        kind = kinds[0]
        step = row["diverged"] if kind == DIVERGED else row["step"]
        values = list(row["series"].items())[:_MOST_METRICS]
        return Event(
            self._count,
            kind,
            row["name"],
            int(step or 0),
            row["max_step"],
            row["reason"],
            time.time(),
            {name: pair[0] for name, pair in values},
            "".join(kinds[1:]),
            int(row["step"] or 0),
        )


def _changes(before: _State, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what has happened, one event: a run that ended because it diverged is first of all one that diverged."""
    state = row["state"]
    lost = (DIVERGED,) if row["diverged"] is not None and not before.told else ()
    if before.state in (*ALIVE, BROKEN) and state in _ENDED:
        return (*lost, state)
    return (*lost, STALLED) if before.state == RUNNING and state == STALLED else lost
