"""Groups of runs that repeat one experiment with different seeds, and the value of a metric in each run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError, ObjectiveMissingError, RunNotFoundError, nearest
from darkit.runs.best import best_value, known_mode
from darkit.runs.comparison_words import WORDS, Words
from darkit.runs.home import base
from darkit.runs.inert import format_json
from darkit.runs.names import is_name
from darkit.runs.notes import project_of, read_notes
from darkit.runs.run import START_RUN, Run, list_runs
from darkit.runs.safe import as_dict
from darkit.runs.status import FINISHED

BEST, LAST = "best", "last"  # values of a run; a number is the step of one
_SEED = "seed"
_OWN = ("name", "project", _SEED)  # settings in which the runs of a group may differ
_DIGITS = 19  # of the smallest number that a log cannot have
_PATTERN = re.compile(r"[*?\[]")
_ENDING = re.compile(r"-seed=[0-9]+")


@dataclass(frozen=True)
class Member:
    """A run of a group.

    Attributes:
        name: The run's name.
        seed: Its seed, or None where none is recorded.
        value: The value of the metric.
    """

    name: str
    seed: int | None
    value: float


@dataclass(frozen=True)
class Measured:
    """A run that may become a member of a group.

    Attributes:
        name: Its name.
        seed: Its seed, or None where none is recorded.
        state: Its state.
        value: The value of the metric, or None.
        diverged: Whether its loss, or the metric, became NaN or infinite and stayed so.
        settings: What it has in common with its repetitions (`common_settings`).
    """

    name: str
    seed: int | None
    state: str
    value: float | None
    diverged: bool = False
    settings: str = ""


@dataclass(frozen=True)
class Group:
    """Runs of one experiment.

    Attributes:
        label: What the group is called.
        members: Its runs that count, by seed and name.
        left_out: The others: name -> why.
    """

    label: str
    members: tuple[Member, ...]
    left_out: dict[str, str]


def find_groups(words: Sequence[str], project: str | None = None, *, root: Path | None = None) -> dict[str, list[Run]]:
    """Find the runs of each group.

    Args:
        words: What names a group: a pattern such as ``gpt-*``; names with commas between; the name that ``seeds=`` or a
            trial of a sweep gave its runs, before ``-seed=``; or the name of a run, which stands for all runs that
            equal it in all settings and data but the seed. Without words, all groups of at least two such runs.
        project: Only runs of this project.
        root: The folder of the runs; by default below the home.

    Raises:
        RunNotFoundError: A word names no run.
        ConfigError: Two groups share a run, or nothing is repeated.
    """
    where = root or base()
    runs = {run.name: run for run in list_runs(root=where) if project is None or _belongs(run, project)}
    if not words:
        return _repeated(runs, where)
    groups = {word: _find(word, runs, where) for word in words}
    taken: dict[str, str] = {}
    for word, found in groups.items():
        for run in found:
            if (other := taken.setdefault(run.name, word)) != word:
                raise ConfigError(f"The run {run.name!r} belongs to {other!r} and to {word!r}. Give groups apart.")
    return groups


def read_group(label: str, runs: Sequence[Run], metric: str, at: str = BEST) -> Group:
    """Read the value of a metric in each run of a group. Runs that are not finished, or lack a value, are left out.

    Args:
        label: What the group is called.
        runs: Its runs.
        metric: A column of the log.
        at: ``best``, ``last`` or a step.

    Raises:
        ObjectiveMissingError: No run has a value of this metric.
        ConfigError: ``at`` is something else, or ``best`` of a metric of which no value is the best.
    """
    columns: set[str] = set()
    found = []
    for run in runs:
        log = run.log()
        columns.update(log.columns)
        value = _value(run, log, metric, at)
        diverged = run.details.diverged is not None or _ends_lost(log, metric)
        found.append(Measured(run.name, seed_of(run), run.details.state, value, diverged, _settings(run)))
    group = make_group(label, found, metric, at)
    if not group.members:
        reasons = sorted({*group.left_out.values()})
        known = "" if metric in columns else f" {nearest(metric, columns)}."
        raise ObjectiveMissingError(f"No run of {label!r} counts: {reasons[0]}.{known}")
    return group


def make_group(label: str, runs: Sequence[Measured], metric: str, at: str = BEST, words: Words = WORDS) -> Group:
    """Return a group of runs.

    Those that are not finished, or lack a finite value, are left out, and those that diverged where the best value
    counts: what came before is no result. A run with settings, seed and value of another one repeats it, and says
    nothing more about noise.

    Args:
        label: What the group is called.
        runs: Its runs.
        metric: What the values are of.
        at: ``best``, ``last`` or a step.
        words: In which it is said why a run is left out.
    """
    members, left_out = [], {}
    first: dict[tuple[str, int | None, float], str] = {}
    no_value = "contrast_no_value" if at in (BEST, LAST) else "contrast_no_value_at"
    for run in sorted(runs, key=lambda run: run.name):
        if run.state != FINISHED:
            left_out[run.name] = words["contrast_of_state"].format(state=words.get(f"state_{run.state}", run.state))
        elif run.value is None or not math.isfinite(run.value):
            left_out[run.name] = words[no_value].format(metric=metric, step=at)
        elif at == BEST and run.diverged:
            left_out[run.name] = words["contrast_diverged"]
        elif (
            run.seed is not None
            and (other := first.setdefault((run.settings, run.seed, run.value), run.name)) != run.name
        ):
            left_out[run.name] = words["contrast_repeats"].format(name=other)
        else:
            members.append(Member(run.name, run.seed, run.value))
    members.sort(key=lambda member: (member.seed is None, member.seed or 0, member.name))
    return Group(label, tuple(members), left_out)


def seed_of(run: Run) -> int | None:
    """Return the seed of a run, or None where none is recorded."""
    return recorded_seed(run.trainer_config, run.info, run.config if run.has_own_loop else {})


def recorded_seed(*places: Mapping[str, Any]) -> int | None:
    """Return the seed of a run from its trainer's config, its ``run.json`` or the config of its own loop."""
    found = [place[_SEED] for place in places if type(place.get(_SEED)) is int]
    return found[0] if found else None


def common_settings(info: Mapping[str, Any], config: Mapping[str, Any], trainer: Mapping[str, Any]) -> str:
    """Return all settings and facts that runs of a group have in common, as text.

    Args:
        info: The ``run.json`` of a run.
        config: Its ``config.json``.
        trainer: Its ``trainer_config.json``.
    """
    own = info.get("made_by") == START_RUN
    model, fork = as_dict(info.get("model")), as_dict(info.get("fork"))
    rebuilt = model["config"] if isinstance(model.get("config"), dict) else config
    further = {key: value for key, value in config.items() if not (own and key == _SEED)}
    settings = {key: value for key, value in trainer.items() if key not in _OWN}
    parts = (model.get("class") or "", {} if own else rebuilt, further, settings, info.get("data"))
    return format_json([*parts, fork.get("parent_id"), fork.get("sha256")], indent=None)


def mode_of(runs: Sequence[Run], metric: str) -> str | None:
    """Return ``min`` or ``max``, whichever value of a metric is better in these runs; None where nothing says so."""
    return next((mode for run in runs if (mode := known_mode(run.trainer_config, metric))), None)


def _value(run: Run, log: Any, metric: str, at: str) -> float | None:
    """Return the value of a metric in a log, if it is finite. Raises `ConfigError`."""
    mode = known_mode(run.trainer_config, metric)
    if at not in (BEST, LAST) and not (at.isascii() and at.isdigit() and len(at) < _DIGITS):
        raise ConfigError(f"--at must be {BEST}, {LAST} or a step, not {at!r}.")
    if metric not in log.columns or not log[metric].dtype.is_numeric():
        return None
    if at == BEST and mode is None:
        raise ConfigError(
            f"Nothing says whether a small or a large {metric!r} is better: compare it with --at {LAST} or at a step."
        )
    if at == BEST:
        return best_value((float(value) for value in log[metric].drop_nulls()), mode or "min")
    if at != LAST:
        has_steps = "step" in log.columns and log["step"].dtype.is_numeric()  # a damaged one is text
        log = log.filter(log["step"] == int(at)) if has_steps else log.clear()
    values = log[metric].drop_nulls()
    return float(values[-1]) if len(values) and math.isfinite(values[-1]) else None


def _ends_lost(log: Any, metric: str) -> bool:
    """Return whether the last value of a metric is NaN or infinite."""
    if metric not in log.columns or not log[metric].dtype.is_numeric():
        return False
    values = log[metric].drop_nulls()
    return bool(len(values)) and not math.isfinite(values[-1])


def _find(word: str, runs: dict[str, Run], root: Path) -> list[Run]:
    if word in runs:
        alike = _settings(runs[word])
        return [run for run in runs.values() if run.name == word or _settings(run) == alike]
    if _PATTERN.search(word):
        found = [run for name, run in runs.items() if fnmatchcase(name, word)]
    elif "," in word:
        names = [name for name in word.split(",") if name]
        missing = next((name for name in names if name not in runs), None)
        if missing is not None:
            raise RunNotFoundError(f"There is no run {missing!r} in {root}. {nearest(missing, runs)}.")
        found = [runs[name] for name in dict.fromkeys(names)]
    else:
        found = [run for name, run in runs.items() if name.startswith(word) and _ENDING.fullmatch(name, len(word))]
    if not found:
        raise RunNotFoundError(
            f"{word!r} is neither a run, a group nor a pattern of runs in {root}. {_hint(word, runs)}."
        )
    return found


def _hint(word: str, runs: dict[str, Run]) -> str:
    groups = {name[: found.start()] for name in runs if (found := re.search(_ENDING.pattern + "$", name))}
    return nearest(word if is_name(word) else "", {*runs, *groups})


def _repeated(runs: dict[str, Run], root: Path) -> dict[str, list[Run]]:
    alike: dict[str, list[Run]] = {}
    for run in runs.values():
        alike.setdefault(_settings(run), []).append(run)
    groups = {_label(found): found for found in alike.values() if len({seed_of(run) for run in found}) > 1}
    if not groups:
        raise ConfigError(
            f"No runs in {root} differ in the seed alone. `darkit train seeds=5` trains five; or name the groups."
        )
    return dict(sorted(groups.items()))


def _label(runs: Sequence[Run]) -> str:
    """Return the name of a group: what its runs' names have in common before ``-seed=``, or the first run's name."""
    stems = {_ENDING.sub("", run.name) for run in runs}
    return min(run.name for run in runs) if len(stems) > 1 else stems.pop()


def _settings(run: Run) -> str:
    return common_settings(run.info, run.config, run.trainer_config)


def _belongs(run: Run, project: str) -> bool:
    return project_of(run.info, read_notes(run.path)) == project
