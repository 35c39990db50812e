"""``define_metric`` and the summary that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from darkit.errors import ConfigError, listing
from darkit.integrations.wandb.values import column_name

_SUMMARIES = ("min", "max", "mean", "best", "last", "first", "copy", "none")
_GOALS = ("minimize", "maximize")


@dataclass(frozen=True)
class Metric:
    """A defined metric.

    Attributes:
        name: Its name, or a pattern with ``*`` at the end.
        step_metric: The name of the values on its x axis, or None.
        step_sync: Whether a row without a value of ``step_metric`` gets the last one.
        summary: What its summary has.
        goal: ``minimize``, ``maximize`` or empty.
    """

    name: str
    step_metric: str | None = None
    step_sync: bool = False
    summary: tuple[str, ...] = ()
    goal: str = ""


class Metrics:
    """The defined metrics of a run, and what its summary has of them."""

    def __init__(self) -> None:
        self._defined: dict[str, Metric] = {}
        self._sums: dict[str, tuple[float, int]] = {}
        self._last: dict[str, Any] = {}

    def define(
        self,
        name: str,
        step_metric: str | Metric | None,
        step_sync: bool | None,
        summary: str | None,
        goal: str | None,
    ) -> Metric:
        """Define a metric; see `Metric`. A later definition replaces an earlier one.

        Raises:
            ConfigError: An argument is unknown.
        """
        if not isinstance(name, str) or not name or "*" in name[:-1]:
            raise ConfigError(f"A metric's name is text, with '*' at most at its end, not {name!r}.")
        kinds = tuple(part.strip() for part in (summary or "").split(",") if part.strip())
        unknown = [kind for kind in kinds if kind not in _SUMMARIES]
        if unknown:
            raise ConfigError(f"Unknown summary {unknown[0]!r}. Available: {listing(_SUMMARIES)}.")
        if goal is not None and goal not in _GOALS:
            raise ConfigError(f"Unknown goal {goal!r}. Available: {listing(_GOALS)}.")
        x = step_metric.name if isinstance(step_metric, Metric) else step_metric
        metric = Metric(name, x, x is not None if step_sync is None else step_sync, kinds, goal or "")
        self._defined[name] = metric
        return metric

    def of(self, name: str) -> Metric | None:
        """Return the definition for a name: its own, else that of the longest pattern."""
        patterns = (key for key in self._defined if key.endswith("*") and fnmatchcase(name, key))
        found = self._defined.get(name) or self._defined.get(max(patterns, key=len, default=""))
        return None if found is None or name == found.step_metric else found

    def with_steps(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the last values of the step metrics that it lacks."""
        full = dict(row)
        for name in row:
            metric = self.of(name)
            if metric is not None and metric.step_metric is not None and metric.step_sync:
                x = column_name(metric.step_metric)
                if x not in full and x in self._last:
                    full[x] = self._last[x]
        self._last |= full
        return full

    def axes(self, row: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the curves of a row's columns that have a step metric."""
        found = ((name, self.of(name)) for name in row)
        return {
            name: [column_name(metric.step_metric), name]
            for name, metric in found
            if metric is not None and metric.step_metric is not None
        }

    def summarize(self, summary: Mapping[str, Any], name: str, value: Any) -> Any:
        """Return the summary of a metric after one more value, or None if it has none."""
        metric = self.of(name)
        kinds = metric.summary if metric is not None else ()
        if not kinds or kinds == ("copy",):
            return value
        before = summary.get(name)
        known = dict(before) if isinstance(before, Mapping) else {}
        if isinstance(value, int | float) and not math.isnan(value):
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1
            best = max if metric is not None and metric.goal == "maximize" else min
            new = {
                "min": min(known.get("min", value), value),
                "max": max(known.get("max", value), value),
                "mean": (total + value) / (count + 1),
                "best": best(known.get("best", value), value),
            }
            known |= {kind: new[kind] for kind in kinds if kind in new}
        known |= {"last": value} if "last" in kinds else {}
        known |= {"first": known.get("first", value)} if "first" in kinds else {}
        return known or None
