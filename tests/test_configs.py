"""Every file of ``configs/`` composes, and none names a setting that does not exist."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from darkit import TrainerConfig
from darkit.cli.compose import config_dir, run_composed

CONFIGS = config_dir()
FILES = sorted(path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.glob("*/*.yaml"))
FIELDS = {field.name for field in fields(TrainerConfig)}
NEEDS = {  # what must be chosen beside, to fit
    "data/regression": ["model=mymodel"],
    "data/digits": ["model=mlp"],
    "data/events": ["model=csnn"],
    "data/table": ["model=mymodel"],
}


def compose(*words: str) -> dict[str, Any]:
    found: list[Any] = []

    def task(settings: DictConfig) -> bool:
        OmegaConf.to_object(settings.trainer)  # which checks every value
        found.append(OmegaConf.to_container(settings, resolve=True))
        return True

    run_composed(task, words)
    return found[0]  # type: ignore[no-any-return]


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / path).with_suffix(".yaml").read_text()) or {}


def test_the_groups_are_those_that_the_docs_name() -> None:
    assert {path.parent.name for path in FILES} == {"model", "data", "trainer", "optimizer", "scheduler", "experiment"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_option_composes_to_what_its_file_says(path: Path) -> None:
    group, option = path.parent.name, path.name
    sign = "+" if group == "experiment" else ""
    values = compose(*NEEDS.get(str(path), []), f"{sign}{group}={option}")
    wanted = {key: value for key, value in read(path).items() if key != "defaults"}
    if group in ("optimizer", "scheduler"):
        wanted = {"trainer": wanted}
    elif group != "experiment":
        wanted = {group: wanted}
    assert wanted
    for part, settings in wanted.items():
        for key, value in settings.items():
            if isinstance(value, str) and "e-" in value:  # YAML 1.1 takes 2e-3 for text, OmegaConf does not
                value = float(value)
            if not (isinstance(value, str | dict) and "${" in str(value)):
                assert values[part][key] == value, key


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name != "model"], ids=str)
def test_each_trainer_setting_is_a_field_of_the_trainers_config(path: Path) -> None:
    values = read(path)
    if path.parent.name == "experiment":
        values = values.get("trainer", {})
    if path.parent.name != "data":
        assert set(values) <= FIELDS


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_every_schedule_of_the_trainer_is_a_choice(name: str) -> None:
    assert compose(f"scheduler={name}")["trainer"]["scheduler"] == name


def test_a_model_chooses_what_fits_it_and_the_command_line_wins() -> None:
    assert compose()["trainer"]["scheduler"] == "cosine"
    assert compose("scheduler=linear")["trainer"]["scheduler"] == "linear"
    own = compose("model=mymodel")
    assert own["trainer"]["scheduler"] == "constant"
    assert own["data"]["_target_"] == "darkit.data.regression"
    assert own["model"]["config"]["input_size"] == own["data"]["input_size"]
    wide = compose("model=mymodel", "data.input_size=5")
    assert wide["model"]["config"]["input_size"] == 5


def test_sizes_that_must_agree_are_said_once() -> None:
    values = compose("data.context_length=32", "data.vocab_size=512")
    assert values["model"]["config"]["context_length"] == 32
    assert values["model"]["config"]["vocab_size"] == 512


def test_comments_say_what_each_file_is_for() -> None:
    for path in [*FILES, Path("train")]:
        if path.parent.name not in ("optimizer", "scheduler"):
            assert (CONFIGS / path).with_suffix(".yaml").read_text().startswith("# "), path
