"""Hydra around a training: where configs are found, what they compose into, and its errors in one sentence."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from darkit.cli.quoting import path_given, sets_path
from darkit.engine.aliases import field_of
from darkit.engine.config import TrainerConfig
from darkit.errors import ConfigError, StorageError, nearest
from darkit.runs.archive import refuse_archive
from darkit.runs.home import home
from darkit.sweep.settings import SweepSettings

OWN_CONFIGS = "configs"
_TRAINER_SETTINGS = [setting.name for setting in fields(TrainerConfig)]


@dataclass
class TrainSettings:
    """What ``configs/train.yaml`` composes into."""

    model: Any = MISSING
    data: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    name: str | None = None
    project: str | None = None
    resume: Any = None
    resume_overrides: bool = False
    fork: Any = None
    loss: Any = None
    sweep: SweepSettings = field(default_factory=SweepSettings)


class _OwnConfigs(SearchPathPlugin):
    """Let ``./configs`` of the working directory come before darkit's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = Path.cwd() / OWN_CONFIGS
        if own.is_dir() and own.resolve() != config_dir().resolve():
            search_path.prepend("working directory", f"file://{own}")


def config_dir() -> Path:
    """Return the folder of darkit's configs: beside the package's modules in a wheel, or the checkout's.

    Raises:
        ConfigError: It is in neither place, or in an archive.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    refuse_archive("its configs", package)
    raise ConfigError(
        f"The configs of darkit are missing: train.yaml is neither in {package / 'configs'} nor in "
        f"{package.parent / 'configs'}. "
        "Install darkit with pip, or use a whole checkout, with its configs folder."
    )


def run_composed(task: Callable[[DictConfig], bool | float], arguments: Sequence[str]) -> None:
    """Compose the config that the arguments ask for and call the task with it; with ``-m``, once per combination.

    Args:
        task: Takes the composed config and says whether something came of it, or returns the objective of what did,
            for a sweeper. It must raise nothing that Hydra would report in its own way.
        arguments: Hydra's flags and overrides.

    Raises:
        ConfigError: The arguments do not compose.
        StorageError: There is no place for what a sweep writes.
    """
    sweep = home() / "sweeps" / time.strftime("%Y%m%d-%H%M%S")
    made = [folder for folder in (sweep, sweep.parent, home()) if not folder.exists()]
    ConfigStore.instance().store(name="schema", node=TrainSettings)
    Plugins.instance().register(_OwnConfigs)
    OmegaConf.register_new_resolver("darkit.sweep", lambda: str(sweep), replace=True)
    original, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    fruitful, reports = False, logging.raiseExceptions

    def enter(settings: DictConfig) -> float:
        nonlocal fruitful
        sys.argv = original  # what processes for further devices are started with
        found = task(settings)
        fruitful |= found is not False
        return math.nan if isinstance(found, bool) else found

    program = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(enter)
    sys.argv = ["darkit train", *arguments]
    # what --info tells goes through logging, which would report a closed pipe once per line
    logging.raiseExceptions = reports and not any(word.startswith("--info") or word == "-i" for word in arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions, and are not printed by Hydra
    try:
        program()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(describe_error(error)) from error
    except OSError as error:
        if error.filename is None:  # of Hydra's own output
            raise
        raise StorageError(error.errno, f"Cannot write to {error.filename}: {error.strerror}.") from error
    finally:
        sys.argv, logging.raiseExceptions = original, reports
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
        if not fruitful:
            _remove(made)


def describe_error(error: BaseException) -> str:
    """Return an error of Hydra or OmegaConf as one sentence."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, wanted = str(error.missing_cfg_file).rpartition("/")
        options = [str(option) for option in error.options or []]
        if group:
            return f"Unknown {group} {wanted!r}. {nearest(wanted, options)}."
        return f"Unknown config {wanted!r}."
    if isinstance(error, OverrideParseException):
        return _describe_override(error.override, error.message)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _describe_key(cause)
    if isinstance(cause, InterpolationKeyError):
        missing = re.search(r"'(.+?)'", str(cause.msg or cause))
        needed = missing[1] if missing else str(cause.msg)
        return (
            f"The setting {cause.full_key} takes the value of {needed}, which is not there: choose what has it, such "
            f"as another data=, or give {cause.full_key}=VALUE."
        )
    if isinstance(cause, ValidationError) and cause.full_key:
        reason = str(cause.msg or cause).splitlines()[0].rstrip(".")
        return f"The setting {cause.full_key} does not fit: {reason}."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\.?$", ".", "; ".join(lines[:2]))


def _describe_override(override: str, message: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is not a setting: write it as key=value."
    if not value.isascii():
        return f"The value of {key} must be in quotes because of its characters: \"{key}='{value}'\"."
    reason = message.splitlines()[0].removeprefix(f"Error parsing override '{override}'").strip()
    return f"The value of {key} cannot be read{': ' + reason if reason else ''}; text with signs in it needs quotes."


def _describe_key(error: OmegaConfBaseException) -> str:
    path, _, key = str(error.full_key).rpartition(".")
    setting = field_of(str(key), _TRAINER_SETTINGS)
    if not path and setting in _TRAINER_SETTINGS:
        return f"Unknown setting {key!r}. Did you mean 'trainer.{setting}'?"
    known = list(error.parent_node or {}) if isinstance(error.parent_node, DictConfig) else []
    options = (str(item) for item in known if item != "hydra")
    text = f"Unknown setting {str(error.full_key)!r}. {nearest(str(key), options)}."
    if "_target_" in known:  # its constructor may still take the argument
        text += f" To add an argument that the config does not list, write +{error.full_key}=VALUE."
    return text


def _remove(folders: Sequence[Path]) -> None:
    """Remove what Hydra made for a sweep of which nothing came: its folder, then those above that are empty."""
    for folder in folders:
        with suppress(OSError):  # it was never made, or holds something else
            (folder / "multirun.yaml").unlink(missing_ok=True)
            folder.rmdir()


def compose_data(settings: Any, choice: str | None, changes: Sequence[str]) -> DictConfig:
    """Compose the settings of data.

    Args:
        settings: The settings to begin with; None takes those of a choice of ``data=``.
        choice: The name of that choice.
        changes: Settings as ``key=value``.

    Raises:
        ConfigError: There is no such choice, or a setting that it does not have.
    """
    if settings is None:
        folders = [folder / "data" for folder in (Path.cwd() / OWN_CONFIGS, config_dir())]
        names = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.yaml")}
        if choice not in names:
            raise ConfigError(f"No file or data choice is named {choice!r}. {nearest(str(choice), names)}.")
        settings = OmegaConf.load(names[choice])
    found: DictConfig = OmegaConf.create(settings)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"{change!r} is not a setting: write it as key=value.")
        if key not in found:
            raise ConfigError(f"Unknown data setting {key!r}. {nearest(key, map(str, found))}.")
        try:
            read = path_given(change) if sets_path(change) else OmegaConf.from_dotlist([f"value={value}"]).value
            OmegaConf.update(found, key, read)
        except (OmegaConfBaseException, HydraException, ValueError) as error:
            raise ConfigError(f"The value of {key} cannot be read: {str(error).splitlines()[0]}") from error
    return found
