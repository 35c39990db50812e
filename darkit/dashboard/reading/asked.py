"""Which runs of the table a query asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from darkit.dashboard.reading.entries import Entry
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.zones import zone_of
from darkit.dashboard.texts import LANGUAGES
from darkit.dashboard.texts.zh_query import chinese_problem
from darkit.errors import QueryError
from darkit.runs.numbers import number_of_word
from darkit.runs.query import Record, parse

_PAUSE = 0.1  # seconds between two looks at runs that are still to be read


def asked(
    text: str, entries: Sequence[Entry], keys: Iterable[str], metrics: Iterable[str], offset: int, zone: str = ""
) -> dict[str, Any]:
    """Return the addresses of the runs that a query asks for, and what is wrong with it.

    Args:
        text: The query.
        entries: All runs.
        keys: Every config key of them.
        metrics: Every metric of them.
        offset: The reader's offset from UTC in minutes, for one without a zone.
        zone: The name of the reader's time zone, as in `zones`; or empty.

    Returns:
        ``matching``: the addresses, or None for a query that cannot be read; ``problem``: its ``message``, which ``zh``
        says in Chinese, ``start`` and ``end``, or None.
    """
    try:
        query = parse(text, now=_now(offset, zone))
    except QueryError as error:
        return {"matching": None, "problem": _problem(error)}
    problem = None
    try:
        query.check_names(keys, metrics)
    except QueryError as error:
        problem = _problem(error)
    try:
        matching = [entry.name for entry in entries if query.matches(record_of(entry))]
    except QueryError as error:
        return {"matching": None, "problem": _problem(error)}
    return {"matching": matching, "problem": problem}


def _now(offset: int, zone: str) -> datetime:
    """Return the time of a reader; without a zone for one in this machine's, whose rules for the summer are known."""
    local = datetime.now().astimezone()
    if not zone and local.utcoffset() == timedelta(minutes=offset):
        return local.replace(tzinfo=None)
    return local.astimezone(zone_of(zone, offset))


def find(library: Library, text: str) -> list[Entry]:
    """Return the runs that a query asks for, newest first, once all runs are read.

    Raises:
        QueryError: The query cannot be read, names what no run has, or takes too long.
    """
    query = parse(text)
    _, entries = library.entries()
    while library.waiting:
        time.sleep(_PAUSE)
        _, entries = library.entries()
    query.check_names(library.config_keys(), [name for name, *_ in library.metrics()])
    return [entry for entry in entries if query.matches(record_of(entry))]


def record_of(entry: Entry) -> Record:
    """Return what a query can ask of a run of the table."""
    row = entry.row
    series: Mapping[str, Sequence[Any]] = row.pop("series")
    if entry.more:
        series = {**series, **json.loads(entry.more)}
    return Record(
        fields=row,
        config=entry.config,
        last={name: number_of_word(pair[0]) for name, pair in series.items()},
        best={name: pair[1] for name, pair in series.items() if pair[1] is not None},
        words=" ".join(words.get(f"state_{row['state']}", "") for words in LANGUAGES.values()),
    )


def _problem(error: QueryError) -> dict[str, Any]:
    return {"message": str(error), "zh": chinese_problem(str(error)), "start": error.start, "end": error.end}
