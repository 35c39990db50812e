"""The configs as files, before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from darkit.engine.callbacks import ExportConfigs
from darkit.engine.config import TrainerConfig
from tests.engine.callbacks.stock import Foreign, stock_fit


def test_alone_it_writes_the_files_of_a_lightning_module(folder: Path) -> None:
    stock_fit(Foreign(), ExportConfigs(folder, TrainerConfig(lr=0.5)))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.py", "trainer_config.json"]
    assert json.loads((folder / "trainer_config.json").read_text())["lr"] == 0.5
    assert json.loads((folder / "config.json").read_text()) == {"fail_at": -1, "skip_at": -1, "nan_at": -1}
    assert (folder / "model.py").read_text().startswith("class Foreign(")


def test_without_a_trainers_config_there_is_no_file_of_it(folder: Path) -> None:
    stock_fit(Foreign(), ExportConfigs(folder))
    assert not (folder / "trainer_config.json").exists()


def test_the_files_are_there_before_the_first_step(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        stock_fit(Foreign(fail_at=0), ExportConfigs(folder))
    assert (folder / "config.json").is_file()
