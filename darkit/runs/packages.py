"""The versions of everything that is installed, from the names of the folders that pip leaves: in milliseconds."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

_MOST = 5000  # packages
_LONGEST = 500  # characters of a name and a version
_EGG = re.compile(r"-py\d[\d.]*$")


def installed_packages() -> dict[str, str]:
    """Return name -> version of every installed package, in order; names are in small letters, with ``-``."""
    return dict(_installed(tuple(sys.path)))


def changed_packages(before: object, now: dict[str, str]) -> dict[str, list[str | None]]:
    """Return what differs between two environments: name -> version before and now, None where it is missing.

    Args:
        before: The packages of the first one, read from a file that anybody may have written.
        now: The packages of the second one.
    """
    items = before.items() if isinstance(before, dict) else ()
    known = {str(name): text for name, text in items if isinstance(text, str) and len(name) + len(text) < _LONGEST}
    if not known:
        return {}
    names = sorted({*known, *now})
    pairs = {name: [known.get(name), now.get(name)] for name in names if known.get(name) != now.get(name)}
    return dict(list(pairs.items())[:_MOST])


@lru_cache(maxsize=1)
def _installed(places: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for place in places:
        for name, version in _packages_in(place):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)  # the first one on the path is imported
    return tuple(sorted(found.items())[:_MOST])


def _packages_in(place: str) -> Iterator[tuple[str, str]]:
    try:
        entries = os.listdir(place or ".")  # noqa: PTH208 - thousands of names, and nothing but names
    except OSError:  # it is missing, or an archive
        return
    for entry in entries:
        stem, ending = os.path.splitext(entry)  # noqa: PTH122 - as above
        if ending not in (".dist-info", ".egg-info"):
            continue
        name, dash, version = _EGG.sub("", stem).rpartition("-")
        if dash:
            yield name, version
        elif ending == ".egg-info":  # of a checkout; only the file inside tells
            described: Any = metadata.Distribution.at(Path(place, entry)).metadata or {}
            if "Name" in described and "Version" in described:
                yield described["Name"], described["Version"]
