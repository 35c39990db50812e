"""Where configs are found, and what Hydra is told and undone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from darkit.cli.compose import config_dir, run_composed
from darkit.errors import ConfigError
from tests.cli.parts import names


def compose(*words: str) -> dict[str, Any]:
    found: list[Any] = []

    def task(settings: DictConfig) -> bool:
        found.append(OmegaConf.to_container(settings))
        return True

    run_composed(task, words)
    (values,) = found
    return values  # type: ignore[no-any-return]


def test_darkits_configs_are_beside_the_package_in_a_checkout() -> None:
    assert (config_dir() / "train.yaml").is_file()


def test_a_config_has_every_part_and_the_trainer_every_field() -> None:
    values = compose()
    parts = {"model", "data", "trainer", "name", "project", "fork", "resume", "resume_overrides", "loss", "sweep"}
    assert set(values) == parts
    assert values["trainer"]["nan_policy"] == "stop", "which no YAML names"


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    before = list(sys.argv)
    seen: list[list[str]] = []

    def task(settings: DictConfig) -> bool:
        seen.append(list(sys.argv))
        return True

    run_composed(task, ["name=x"])
    with pytest.raises(ConfigError):
        run_composed(task, ["nothing=x"])
    assert seen == [before], "further processes are started with the command as it was"
    assert sys.argv == before
    assert os.environ["HYDRA_FULL_ERROR"] == "0"
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    run_composed(task, [])
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_composing_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.chdir(tmp_path)
    compose("model=mymodel")
    assert names(tmp_path) == set()


def test_own_configs_add_to_darkits_and_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("model/theirs", "_target_: a.B\n"),
        ("optimizer/adam", "# @package trainer\noptimizer: adamax\n"),
    ):
        path = tmp_path / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert compose("model=theirs")["model"] == {"_target_": "a.B"}
    assert compose("optimizer=adam")["trainer"]["optimizer"] == "adamax"
    assert compose("optimizer=sgd")["trainer"]["optimizer"] == "sgd"
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(
        ConfigError,
        match=r"^Unknown model 'theirs'\. Available: "
        r"csnn, gpt, lstm, mlp, mymodel, nirgraph, snn, spikebert and 2 more\.$",
    ):
        compose("model=theirs")
