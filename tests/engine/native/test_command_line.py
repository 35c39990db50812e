"""`RunRecorder` in a `LightningCLI`: from its command line and from its config file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader

import darkit
from tests.engine.native.modules import Base, samples

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Data(lightning.LightningDataModule):
    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.size = size

    def train_dataloader(self) -> Any:
        return DataLoader(samples(), self.size)


def test_a_command_line_names_the_recorder_with_its_settings() -> None:
    words = ["fit", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    words += ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    words += ["--trainer.callbacks=darkit.RunRecorder", "--trainer.callbacks.name=run"]
    words += ["--trainer.callbacks.save_step_interval=3", "--model.width=5", "--data.size=8"]
    LightningCLI(Base, Data, args=words, save_config_callback=None)
    run = darkit.load("run")
    assert run.status == "finished"
    assert run.config == {"width": 5}
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [3, 5]


def test_a_config_file_of_the_command_line_too(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    recorder = {"class_path": "darkit.RunRecorder", "init_args": {"name": "run", "keep_last": 1}}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    path.write_text(json.dumps({"trainer": {"max_steps": 4, "accelerator": "cpu", "callbacks": [recorder], **quiet}}))
    LightningCLI(Base, Data, args=["fit", "--config", str(path)], save_config_callback=None)
    assert [checkpoint.step for checkpoint in darkit.load("run").checkpoints()] == [4]
