"""The integration guide's own calls, written as its readers write them, run as they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import darkit
from darkit.core import Predicter, Trainer, TrainerConfig
from darkit.core import Trainer as BaseTrainer
from darkit.errors import DeviceWarning
from darkit.runs import base
from tests.core.parts import byte_tokenizer


@dataclass
class MyModelConfig:
    input_size: int = 12
    hidden_size: int = 12
    output_size: int = 12


class MyModel(nn.Module):
    def __init__(self, config: MyModelConfig):
        super(MyModel, self).__init__()  # noqa: UP008 - as the guide has it
        self.config = config
        self.fc1 = nn.Linear(config.input_size, config.hidden_size)
        self.fc2 = nn.Linear(config.hidden_size, config.output_size)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        return self.fc2(x)


@dataclass
class MyTrainerConfig(TrainerConfig):
    device = "cuda"
    lr = 1e-3
    batch_size = 4
    max_step: int = 10000
    save_step_interval: int = 10000


class MyTrainer(Trainer):
    def __init__(self, model: MyModel, config: MyTrainerConfig, **kwargs):
        super().__init__(model, config, **kwargs)
        self.config = config

    def _get_optimizer(self):
        return torch.optim.Adam(self.model.parameters(), lr=self.config.lr)

    def train(self, train_dataset, val_dataset=None):
        dataloader = DataLoader(train_dataset, batch_size=self.config.batch_size)

        self.optimizer = self._get_optimizer()
        for step, batch in tqdm(enumerate(dataloader)):
            inputs, labels = batch
            inputs = inputs.to(self.config.device)
            labels = labels.to(self.config.device)

            outputs = self.model(inputs)
            loss = F.mse_loss(outputs, labels)
            loss.backward()
            self.optimizer.step()

            self.current_step = step
            self._auto_save_pretrained()


class MyPredicter(Predicter):
    def __init__(self, name, model, device="cpu"):
        super().__init__(name, model, device)

    @classmethod
    def get_model(cls, name: str, checkpoint: str | None = None):
        checkpoint_path = cls.get_checkpoint(name, checkpoint)
        config_dict = cls.get_model_config_json(name)
        config = MyModelConfig(**config_dict)
        model = MyModel(config=config)
        checkpoint_dict = torch.load(checkpoint_path, weights_only=True)
        model.load_state_dict(checkpoint_dict["state_dict"], strict=True)
        return model

    def predict(self, input):
        input = input.to(self.device)
        return self.model(input)


@dataclass
class LogFieldnames:
    step: int = 0
    train_loss: float = 0.0


class Logged(BaseTrainer):
    _visual_series = {"train_loss": ["step", "train_loss"]}  # noqa: RUF012

    def __init__(self, model, tokenizer, config, **kwargs):
        super(Logged, self).__init__(  # noqa: UP008
            model, tokenizer, config, log_fieldnames=LogFieldnames, **kwargs
        )

    def train(self, train_dataset, val_dataset=None):
        criterion = nn.MSELoss()
        for step, batch in enumerate(train_dataset):
            inputs, labels = batch
            outputs = self.model(inputs)
            loss = criterion(outputs, labels)
            log_fieldnames = LogFieldnames(
                step=step,
                train_loss=loss,
            )
            self.csv_logger.log(log_fieldnames)


@pytest.fixture(autouse=True)
def _no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def pairs(count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 12, generator=generator), torch.randn(count, 12, generator=generator))


def settings(**values: Any) -> MyTrainerConfig:
    return MyTrainerConfig(**values)


def test_the_guides_trainer_saves_and_exports_and_its_predicter_predicts() -> None:
    Trainer.register(MyModel.__name__, MyTrainer)
    MyPredicter.register(MyModel.__name__, MyPredicter)
    model = MyModel(MyModelConfig())
    with pytest.warns(DeviceWarning, match="'cuda' is not available"):
        trainer = Trainer(model, settings(name="guide", max_step=10, save_step_interval=4))
    trainer.train(pairs(40))

    folder = base() / "guide"
    assert {path.name for path in folder.glob("iter-*.pth")} == {f"iter-{step}-ckpt.pth" for step in (4, 8, 10)}
    assert "optimizer_state_dict" in torch.load(folder / "iter-10-ckpt.pth", weights_only=True)
    assert darkit.load("guide").config == {"input_size": 12, "hidden_size": 12, "output_size": 12}
    exported = darkit.load("guide").trainer_config
    assert exported == exported | {"device": "cpu", "lr": 1e-3, "batch_size": 4, "max_step": 10}

    predicter = Predicter.from_pretrained("guide")
    assert type(predicter) is MyPredicter
    assert predicter.tokenizer is None
    x = torch.ones(2, 12)
    assert torch.equal(predicter.predict(x), model(x))


def test_the_guides_trainer_with_less_data_than_steps_ends_saved() -> None:
    with pytest.warns(DeviceWarning):
        trainer = MyTrainer(MyModel(MyModelConfig()), settings(name="short"))
    trainer.train(pairs(12))
    run = darkit.load("short")
    assert (run.status, run.details.step, run.details.max_step) == ("finished", 3, 10000)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [3]


def test_the_guides_log_has_its_columns_its_numbers_and_its_series() -> None:
    with pytest.warns(DeviceWarning):
        trainer = Logged(MyModel(MyModelConfig()), byte_tokenizer(), settings(name="log"))
    trainer.train(DataLoader(pairs(12), batch_size=4))
    run = darkit.load("log")
    lines = (run.path / "train_log.csv").read_text().splitlines()
    assert lines[0] == "step,train_loss"
    assert [re.fullmatch(r"\d,\d\.\d+", line) is not None for line in lines[1:]] == [True] * 3
    assert run.log()["step"].to_list() == [0, 1, 2]
    assert run.series == {"train_loss": ["step", "train_loss"]}
    assert (run.path / "tokenizer.json").is_file()


def test_the_older_home_variable_holds_the_guides_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARWIN_KIT_HOME")
    monkeypatch.setenv("DSPIKE_HOME", str(tmp_path))
    with pytest.warns(DeviceWarning):
        Logged(MyModel(MyModelConfig()), None, settings(name="older")).train([])
    assert (tmp_path / "base" / "older" / "train_log.csv").read_text() == "step,train_loss\n"
