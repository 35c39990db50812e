"""The state of a page, read from its address and its requests. Neither is trusted: both are checked here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.zones import checked_zone, offset_at
from darkit.errors import ConfigError
from darkit.runs.roots import check_address
from darkit.runs.safe import finite_number

AXES = ("step", "epoch", "relative", "wall")
SOURCES = ("log", "system")
SPREADS = ("std", "ci")
MOST_RUNS = 200
MOST_CHARTS = 2_000  # of a page, as many as a log can have columns
_LONGEST_ADDRESS = 256_000
_MOST_FIELDS = 2_000
MOST_KEYS = 50  # by which runs are grouped
_MOST_JOINED, _MOST_SERIES = 50, 100  # charts that a reader made, and series in each


@dataclass(frozen=True)
class View:
    """How curves are drawn.

    Attributes:
        axis: The x-axis: ``step``, ``epoch``, ``relative`` (seconds since the first row) or ``wall`` (clock time).
        log: Whether y is logarithmic.
        smooth: Weight of the moving average, from 0 to 0.9999.
        robust: Whether outliers are left out of the scale of y (never of the data).
        low: Start of the shown range of x, or None.
        high: Its end, or None.
        group: The keys that group the runs: config keys, what every run has, and ``*`` for all that differ but seeds.
        unfold: The groups whose runs are shown one by one.
        dark: Whether the page is dark.
        language: ``en`` or ``zh``.
        offset: The reader's offset from UTC now, in minutes; for a reader without a ``zone``.
        source: ``log``, or ``system`` for machine usage.
        x: The column that is the x-axis, or empty for ``axis``.
        joined: Series that share one chart.
        apart: Families of series, such as ``rate_*``, of which each has a chart of its own.
        spread: The half width of a group's band: ``std``, or ``ci``, that of the 95 % confidence interval of its mean.
        zone: The name of the reader's time zone, as in `reading.zones`; or empty.
    """

    axis: str = "step"
    log: bool = False
    smooth: float = 0.0
    robust: bool = False
    low: float | None = None
    high: float | None = None
    group: tuple[str, ...] = ()
    unfold: tuple[str, ...] = ()
    dark: bool = False
    language: str = "en"
    offset: int = 0
    source: str = "log"
    x: str = ""
    joined: tuple[tuple[str, ...], ...] = ()
    apart: tuple[str, ...] = ()
    spread: str = "std"
    zone: str = ""

    def offset_at(self, seconds: float) -> float:
        """Return how many minutes the reader's clock is before UTC at a moment in Unix seconds."""
        return offset_at(self.zone, self.offset, seconds)


def read_view(values: object) -> View:
    """Check a view of a request. Raises `ConfigError`."""
    if not isinstance(values, Mapping):
        raise ConfigError("A view must be a JSON object.")
    low, high = _optional_number(values, "low"), _optional_number(values, "high")
    if low is not None and high is not None and low > high:
        low, high = high, low
    return View(
        axis=_choice(values, "axis", AXES),
        log=values.get("log") is True,
        smooth=min(0.9999, max(0.0, _optional_number(values, "smooth") or 0.0)),
        robust=values.get("robust") is True,
        low=low,
        high=high,
        group=tuple(read_texts(values.get("group", []), MOST_KEYS)),
        unfold=tuple(read_texts(values.get("unfold", []), MOST_RUNS)),
        dark=values.get("dark") is True,
        language=_choice(values, "language", ("en", "zh")),
        offset=read_offset(values),
        source=_choice(values, "source", SOURCES),
        x=read_text(values, "x"),
        joined=_read_joined(values.get("joined", [])),
        apart=tuple(read_texts(values.get("apart", []), MOST_RUNS)),
        spread=_choice(values, "spread", SPREADS),
        zone=checked_zone(values.get("zone")),
    )


def read_offset(values: Mapping[str, Any]) -> int:
    """Return the reader's offset from UTC in minutes: at most a day. Raises `ConfigError`."""
    return int(max(-1439, min(1439, _optional_number(values, "offset") or 0)))


def read_names(values: object) -> list[str]:
    """Check a list of addresses of runs in a request. Raises `NameInvalidError` or `ConfigError`."""
    return [check_address(name) for name in dict.fromkeys(read_texts(values, MOST_RUNS))]


def read_texts(values: object, most: int) -> list[str]:
    """Check a list of strings and its length. Raises `ConfigError`."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) > most:
        raise ConfigError(f"Expected a list of at most {most} strings.")
    for value in values:
        if not isinstance(value, str) or len(value) > 1000:
            raise ConfigError("Expected strings of at most 1000 characters.")
    return [readable(value) for value in values]


def _read_joined(values: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) > _MOST_JOINED:
        raise ConfigError(f"joined must be a list of at most {_MOST_JOINED} lists of series.")
    return tuple(tuple(dict.fromkeys(read_texts(one, _MOST_SERIES))) for one in values)


def _choice(values: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    value = values.get(key, allowed[0])
    if value not in allowed:
        raise ConfigError(f"{key} must be one of {', '.join(allowed)}.")
    return str(value)


def read_text(values: Mapping[str, Any], key: str) -> str:
    """Check a string of a request. Raises `ConfigError`."""
    value = values.get(key, "")
    if not isinstance(value, str) or len(value) > 1000:
        raise ConfigError(f"{key} must be a string of at most 1000 characters.")
    return readable(value)


def _optional_number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    number = finite_number(value)
    if value is not None and number is None:
        raise ConfigError(f"{key} must be a number.")
    return number


def read_address(href: str) -> tuple[str, dict[str, Any]]:
    """Read an address.

    Returns:
        The path, unquoted, and the state of the page; invalid values are replaced by the defaults.
    """
    try:
        parts = urlsplit(href[:_LONGEST_ADDRESS])
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
        "left_out": max(0, len(runs) - MOST_RUNS) + _count(one("more", "0")),
        "axis": axis if axis in AXES else "step",
        "smooth": _weight(one("smooth", "0")),
        "log": one("log") == "1",
        "robust": one("robust") == "1",
        "group": [key for key in query.get("group", []) if key],
        "x": one("x"),
        "all": one("all") == "1",
        "keys": query.get("key", []),
        "metric": one("metric"),
        "against": one("against"),
        "metric_against": one("value"),
        "log_x": one("logx") == "1",
        "log_y": one("logy") == "1",
        "tab": one("tab", "charts"),
        "search": one("q"),
        "archived": one("archived") == "1",
        "project": one("project"),
        "by": query.get("by", []),
        "spread": "ci" if one("spread") == "ci" else "std",
        "measured": one("measured"),
        "at": "last" if one("at") == "last" else "best",
        "baseline": one("baseline"),
        "top": one("top") == "1",
        "language": one("lang"),
    }


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return min(0.99, max(0.0, value)) if math.isfinite(value) else 0.0


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
