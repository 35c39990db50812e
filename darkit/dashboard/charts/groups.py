"""Groups of runs by one or several keys, as on the page of runs, for charts and statistics."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from darkit.dashboard.charts.colours import places_of
from darkit.dashboard.charts.configs import MISSING, differing_keys, shown_value
from darkit.dashboard.charts.figures import inert
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.texts import text
from darkit.dashboard.view import View
from darkit.errors import ConfigError, nearest

ALL_BUT_SEED = "*"
OWN_KEYS = ("group", "project", "model", "state", "tags")  # what runs can be grouped by besides config keys
_SEED = re.compile(r"(^|[._])seed$")


def keys_of(chosen: Sequence[str], shown: Sequence[Shown]) -> list[str]:
    """Return the keys that are meant: `ALL_BUT_SEED` stands for every config key that differs, without seeds."""
    if ALL_BUT_SEED not in chosen:
        return list(dict.fromkeys(chosen))
    differing = [key for key in differing_keys(shown) if not is_seed(key)]
    return list(dict.fromkeys(key for one in chosen for key in (differing if one == ALL_BUT_SEED else [one])))


def check_keys(chosen: Sequence[str], shown: Sequence[Shown]) -> None:
    """Refuse keys that no run has.

    Raises:
        ConfigError: The text has the nearest key.
    """
    known = dict.fromkeys(key for run in shown for key in run.facts.config_values())
    for key in chosen:
        if key not in (ALL_BUT_SEED, *OWN_KEYS) and key not in known:
            every = [*known, *OWN_KEYS]
            ends = [one for one in every if one.rpartition(".")[2] == key]
            raise ConfigError(
                f"None of these runs has the config key {key!r}. {nearest(ends[0] if ends else key, every)}."
            )


def is_seed(key: str) -> bool:
    """Return whether a config key is a seed."""
    return _SEED.search(key) is not None


def have_seeds(shown: Sequence[Shown]) -> bool:
    """Return whether runs differ in their seeds."""
    return any(is_seed(key) for key in differing_keys(shown))


def group_runs(shown: Sequence[Shown], chosen: Sequence[str], language: str) -> list[tuple[str, list[Shown]]]:
    """Group runs by what they have under the chosen keys, sorted by value; no groups without keys.

    Runs that differ in nothing but the seed are one group. The label of a group has the names of several keys.
    """
    if not chosen:
        return []
    keys = keys_of(chosen, shown)
    groups: dict[tuple[str, ...], list[Shown]] = {}
    for run in shown:
        config = run.facts.config_values()
        groups.setdefault(tuple(_written(run, key, config) for key in keys), []).append(run)
    named: dict[str, list[Shown]] = {}
    for values, runs in sorted(groups.items(), key=lambda item: [_natural(value) for value in item[0]]):
        label = "  ".join(f"{_short(key, language)}={value}" for key, value in zip(keys, values, strict=True))
        label = values[0] if len(keys) == 1 else label or text(language, "group_all")
        named.setdefault(readable(label), []).extend(runs)
    return list(named.items())


def groups_of(shown: Sequence[Shown], view: View) -> list[tuple[str, list[Shown]]]:
    """Group runs as a view asks."""
    return group_runs(shown, view.group, view.language)


def placed_groups(shown: Sequence[Shown], view: View) -> list[tuple[int, str, list[Shown]]]:
    """Return the groups of runs, each with the place of its colour."""
    groups = groups_of(shown, view)
    places = places_of([label for label, _ in groups], {})
    return [(place, label, members) for place, (label, members) in zip(places, groups, strict=True)]


def _written(run: Shown, key: str, config: dict[str, object]) -> str:
    if key == "tags":
        return ", ".join(sorted(run.facts.notes.tags)) or MISSING
    value = getattr(run.facts, key) if key in OWN_KEYS else config.get(key, MISSING)
    return shown_value(value) or MISSING


def _short(key: str, language: str) -> str:
    return text(language, f"col_{key}") if key in OWN_KEYS else key.rpartition(".")[2]


def _natural(label: str) -> tuple[int, float, str]:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (1, 0.0, inert(label)) if math.isnan(number) else (0, number, label)
