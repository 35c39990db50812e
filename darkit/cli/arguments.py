"""The arguments of ``darkit train``, prepared for Hydra: quoted names and paths, and a resumed run's overrides."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from omegaconf import OmegaConf

from darkit.cli.compose import config_dir
from darkit.cli.quoting import unquoted, with_text_quoted
from darkit.cli.recorded import believed_overrides, key_of
from darkit.engine.aliases import field_of
from darkit.engine.config import AUTO, TrainerConfig
from darkit.engine.launchers import has_lasting_name
from darkit.errors import ConfigError, DarkitError
from darkit.runs import Run, base, load
from darkit.runs.checkpoints import checkpoint_steps, find_checkpoint
from darkit.runs.lineage import find_parent
from darkit.runs.names import run_path, split_reference
from darkit.sweep.settings import RESULT_SETTINGS

SWEEP_FLAGS = ("-m", "--multirun")
_USUAL = {"trainer": "default", "optimizer": "adamw", "scheduler": "constant"}  # of ``train.yaml``
_OF_ONE_RUN = ("name", "resume", "fork", "trainer.name")  # overrides that a resumed run does not inherit
_OF_PARENT = ("project", "resume_overrides", "trainer.project")  # further ones that a fork does not


def prepare(words: Sequence[str]) -> list[str]:
    """Return the arguments for Hydra.

    Flags come first, because Hydra takes overrides only in one piece; then the overrides of a run to be resumed or
    forked; then those given, which win. Trainer settings under a name from another library are renamed.

    Raises:
        ConfigError: The run to resume is not named, its overrides cannot be read, or a setting is given under two names
            with different values.
        RunNotFoundError: There is no such run.
    """
    overrides = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith("-"))]
    flags = [word for word in words if word not in overrides]
    overrides = _with_fields(overrides)
    given = [with_text_quoted(word, sweep=is_sweep(words)) for word in overrides]
    return [*flags, *_earlier_overrides(overrides), *given]


def refuse_sweep_settings(words: Sequence[str]) -> None:
    """Refuse settings of ``darkit sweep`` in a training. Raises `ConfigError`."""
    for word in words:
        group, dot, name = key_of(word).partition(".")
        if group == "sweep" and dot and not (is_sweep(words) and name in RESULT_SETTINGS):
            allowed = " and ".join(f"sweep.{setting}" for setting in RESULT_SETTINGS)
            raise ConfigError(
                f"{word} belongs to darkit sweep: write darkit sweep instead of darkit train. "
                f"darkit train -m reads {allowed} only."
            )


def is_sweep(words: Sequence[str]) -> bool:
    """Return whether the words ask for a run per combination."""
    return any(word in SWEEP_FLAGS for word in words)


def sweeps_names(words: Sequence[str]) -> bool:
    """Return whether a sweep gives each run its own name."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    named = [word for word in words if key_of(word) == "name"]
    return any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(named))


def resumed(words: Sequence[str]) -> Run | None:
    """Find the run that is to be resumed, or None."""
    values = {key_of(word): unquoted(word.partition("=")[2]) for word in words if "=" in word}
    wanted = values.get("resume", "")
    if wanted.lower() in ("", "null", "false"):
        return None
    if wanted.lower() not in ("true", AUTO):
        return load(wanted)
    name = values.get("name", "null")
    if name in ("", "null"):
        if wanted.lower() == AUTO and has_lasting_name():
            return None
        raise ConfigError(f"resume={wanted} resumes the run called name=, but no name was given: write resume=NAME.")
    if wanted.lower() == AUTO and not run_path(base(), name).exists():
        return None
    return load(name)


def forked(words: Sequence[str]) -> Run | None:
    """Find the run that is to be forked, or None."""
    values = {key_of(word): unquoted(word.partition("=")[2]) for word in words if "=" in word}
    wanted = values.get("fork", "")
    return None if wanted.lower() in ("", "null") else find_parent(wanted)[0]


def unchosen(overrides: Sequence[str], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trainer settings that have a value of darkit's own config, unless somebody gave them.

    Args:
        overrides: What was given.
        choices: The chosen option of each group.
    """
    given = {key_of(word).removeprefix("trainer.") for word in overrides}
    found: dict[str, Any] = {}
    for group, usual in _USUAL.items():
        if choices.get(group) == usual and group not in given:
            found |= cast(
                dict[str, Any], OmegaConf.to_container(OmegaConf.load(config_dir() / group / f"{usual}.yaml"))
            )
    return {name: value for name, value in found.items() if name not in given}


def _wanted_step(run: Run, reference: str) -> float:
    """Return the step of the checkpoint that a reference to a run names; the last one of all where it names none."""
    try:
        _, wanted = split_reference(reference.rpartition(os.sep)[2])
        return find_checkpoint(run.path, wanted).step if wanted not in (None, "latest") else math.inf
    except DarkitError:  # which is refused, with its reason, once the settings are known
        return math.inf


def _earlier_overrides(given: Sequence[str]) -> list[str]:
    own = {*map(key_of, given)}
    values = {key_of(word): unquoted(word.partition("=")[2]) for word in given if "=" in word}
    run = resumed(given)
    if run is not None and ("fork" not in own or checkpoint_steps(run.path)):
        return believed_overrides(run, given, {*_OF_ONE_RUN, *own}, step=_wanted_step(run, values["resume"]))
    parent = forked(given)
    if parent is None:
        return []
    left_out = {*_OF_ONE_RUN, *_OF_PARENT, *own}
    return believed_overrides(parent, given, left_out, step=_wanted_step(parent, values["fork"]))


def _with_fields(words: Sequence[str]) -> list[str]:
    """Replace ``trainer.max_steps=`` and other usual names by the fields that they mean."""
    known = [field.name for field in fields(TrainerConfig)]
    found: list[str] = []
    given: dict[str, tuple[str, str, str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        group, dot, name = key.rpartition(".")
        if group.lstrip("+~") != "trainer":
            found.append(word)
            continue
        field = field_of(name, known)
        other, other_value, earlier = given.setdefault(field, (name, value, word))
        if other != name and other_value != value:
            raise ConfigError(
                f"{earlier} and {word} are the same setting (trainer.{field}) with different values. Give one of them."
            )
        found.append(f"{group}{dot}{field}{equals}{value}")
    return found
