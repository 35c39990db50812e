"""The clock of a reader: the rules of a time zone, by the name that a browser gives, or else its offset of today."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

LOCAL = "local"
"""The zone of this machine, whose rules have no name here."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*")
_LONGEST = 64


def checked_zone(name: object) -> str:
    """Return the name of a zone as it came in a request; empty for one that is not known here."""
    known = isinstance(name, str) and len(name) <= _LONGEST and _NAME.fullmatch(name) and _rules(name) is not None
    return str(name) if known else ""


def zone_of(name: str, offset: int) -> tzinfo | None:
    """Return a zone: that of a name, or of an offset from UTC in minutes for an empty one; None for this machine's."""
    if name == LOCAL:
        return None
    return (_rules(name) if name else None) or timezone(timedelta(minutes=offset))


def offset_at(name: str, offset: int, seconds: float) -> float:
    """Return how many minutes the clock of a reader is before UTC at a moment in Unix seconds."""
    try:
        found = datetime.fromtimestamp(seconds, UTC).astimezone(zone_of(name, offset)).utcoffset()
    except (ValueError, OverflowError, OSError):  # a moment that no calendar has
        return offset
    return offset if found is None else found.total_seconds() / 60


@lru_cache(1000)
def _rules(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # also of a machine without these rules
        return None
