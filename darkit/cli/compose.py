"""Hydra around a training: where configs are found, what they compose into, and its errors in one sentence."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from darkit.engine.config import TrainerConfig
from darkit.errors import ConfigError, nearest
from darkit.runs.home import home

_OWN_CONFIGS = "configs"


@dataclass
class TrainSettings:
    """What ``configs/train.yaml`` composes into."""

    model: Any = MISSING
    data: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    name: str | None = None
    resume: Any = None
    loss: Any = None


class _OwnConfigs(SearchPathPlugin):
    """Lets ``./configs`` of the working directory come before darkit's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = Path.cwd() / _OWN_CONFIGS
        if own.is_dir() and own.resolve() != config_dir().resolve():
            search_path.prepend("working directory", f"file://{own}")


def config_dir() -> Path:
    """Returns the folder of darkit's configs: beside the package's modules in a wheel, or the checkout's.

    Raises:
        ConfigError: It is in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"The configs of darkit are neither in {package} nor beside it: install it again.")


def run_composed(task: Callable[[DictConfig], None], arguments: Sequence[str]) -> None:
    """Composes the config that the arguments ask for and calls the task with it; with ``-m``, once per combination.

    Args:
        task: Takes the composed config.
        arguments: Hydra's overrides and flags.

    Raises:
        ConfigError: The arguments do not compose.
    """
    ConfigStore.instance().store(name="schema", node=TrainSettings)
    Plugins.instance().register(_OwnConfigs)
    OmegaConf.register_new_resolver("darkit.home", lambda: str(home()), replace=True)
    original, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")

    def enter(settings: DictConfig) -> None:
        sys.argv = original  # what processes for further devices are started with
        task(settings)

    program = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(enter)
    sys.argv = ["darkit train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions, and are not printed by Hydra
    try:
        program()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(describe_error(error)) from error
    finally:
        sys.argv = original
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


def describe_error(error: BaseException) -> str:
    """Says in one sentence what Hydra or OmegaConf did not like."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, wanted = str(error.missing_cfg_file).rpartition("/")
        options = [str(option) for option in error.options or []]
        if group:
            return f"There is no {group} {wanted!r}; {nearest(wanted, options)}."
        return f"There is no config {wanted!r}."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _describe_key(cause)
    if isinstance(cause, ValidationError) and cause.full_key:
        reason = str(cause.msg or cause).splitlines()[0]
        return f"The setting {cause.full_key} does not fit: {reason}."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\.?$", ".", "; ".join(lines[:2]))


def _describe_key(error: OmegaConfBaseException) -> str:
    path, _, key = str(error.full_key).rpartition(".")
    known = list(error.parent_node or {}) if isinstance(error.parent_node, DictConfig) else []
    what = "trainer setting" if path == "trainer" else f"setting {path}." if path else "setting"
    name = f"{what}{key}" if what.endswith(".") else f"{what} {key!r}"
    return f"There is no {name}; {nearest(str(key), map(str, known))}."
