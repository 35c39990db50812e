"""Groups of shown runs compared by a metric, by the same statistics as ``darkit compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darkit.dashboard.charts.compare import mode_of
from darkit.dashboard.charts.groups import ALL_BUT_SEED, group_runs, have_seeds
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.series import lost_at, series_values
from darkit.dashboard.texts import LANGUAGES
from darkit.runs.comparison import Comparison, compare
from darkit.runs.comparison_tables import left_out
from darkit.runs.groups import BEST, LAST, Measured, common_settings, make_group, recorded_seed
from darkit.runs.run import START_RUN


@dataclass(frozen=True)
class Contrasts:
    """Groups of runs and whether they differ.

    Attributes:
        grouped: Whether runs are grouped at all.
        repeated: Whether any group has more than one run.
        compared: The groups with a value compared; None without any.
        left_out: What is said of groups in which no run counts.
    """

    grouped: bool
    repeated: bool = False
    compared: Comparison | None = None
    left_out: Sequence[str] = ()


def grouping(shown: Sequence[Shown], chosen: Sequence[str]) -> list[str]:
    """Return the keys by which statistics group runs: those chosen, else all but the seed where seeds differ."""
    return list(chosen) or ([ALL_BUT_SEED] if have_seeds(shown) else [])


def contrasts_of(
    shown: Sequence[Shown], chosen: Sequence[str], metric: str, at: str, language: str, baseline: str = ""
) -> Contrasts:
    """Compare the groups of runs by a metric, each with one of them.

    Args:
        shown: The runs.
        chosen: The keys by which they are grouped (`grouping`).
        metric: The metric.
        at: ``best`` or ``last``; of a metric that has no best value the last one is compared.
        language: In which it is said.
        baseline: The label of the group with which the others are compared; by default, and if no group in which a
            run counts has it, the first.
    """
    words = LANGUAGES[language]
    groups = group_runs(shown, chosen, language)
    mode = mode_of(shown, metric)
    when = BEST if at == BEST and mode is not None else LAST
    found = [
        make_group(label, [_measure(run, metric, when) for run in runs], metric, when, words) for label, runs in groups
    ]
    some = sorted((group for group in found if group.members), key=lambda group: group.label != baseline)
    return Contrasts(
        grouped=bool(groups),
        repeated=any(len(runs) > 1 for _, runs in groups),
        compared=compare(some, metric, when, mode, words=words) if some else None,
        left_out=left_out([group for group in found if not group.members], words),
    )


def _measure(run: Shown, metric: str, at: str) -> Measured:
    value = series_values(run.facts, run.table, metric).get(metric)
    facts = run.facts
    own = facts.config if facts.info.get("made_by") == START_RUN else {}
    seed = recorded_seed(facts.trainer, facts.info, own)
    diverged = (value is not None and value.lost is not None) or lost_at(facts, run.table) is not None
    found = None if value is None else value.best if at == BEST else value.last
    settings = common_settings(facts.info, facts.config, facts.trainer)
    return Measured(facts.name, seed, facts.state, found, diverged, settings)
