"""What a page's address says: which page, which runs, and how it shows them. Nothing in it is trusted."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from darkit.dashboard.views import AXES, MOST_RUNS

_LONGEST = 256_000
_MOST_FIELDS = 2_000


def read_address(href: str) -> tuple[str, dict[str, Any]]:
    """Reads an address.

    Returns:
        The path, with its marks resolved, and what the page shows; a value that cannot be is the default.
    """
    try:
        parts = urlsplit(href[:_LONGEST])
    except ValueError:
        parts = urlsplit("/")
    fields = "&".join(parts.query.split("&")[:_MOST_FIELDS])
    query = parse_qs(fields, keep_blank_values=True, errors="replace")

    def one(key: str, default: str = "") -> str:
        return query.get(key, [default])[0]

    axis = one("axis", "step")
    runs = list(dict.fromkeys(query.get("run", [])))
    return unquote(parts.path, errors="replace"), {
        "runs": runs[:MOST_RUNS],
        "left_out": max(0, len(runs) - MOST_RUNS),
        "axis": axis if axis in AXES else "step",
        "smooth": _weight(one("smooth", "0")),
        "log": one("log") == "1",
        "robust": one("robust") == "1",
        "group": one("group"),
        "all": one("all") == "1",
        "keys": query.get("key", []),
        "metric": one("metric"),
        "tab": one("tab", "charts"),
        "search": one("q"),
        "archived": one("archived") == "1",
        "language": one("lang"),
    }


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return min(0.99, max(0.0, value)) if math.isfinite(value) else 0.0
