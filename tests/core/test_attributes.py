"""What subclasses of DarwinKit's trainers read, set, call and override works in darkit's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import darkit
from darkit.core import FabricTrainer, LogFieldnames, Trainer, TrainerConfig
from darkit.errors import CheckpointUnreadableError, ConfigError
from darkit.runs import base
from darkit.runs.verify import find_problem
from tests.core.parts import Loop, LoopConfig, Net, byte_tokenizer, loop, net, samples, saved


@dataclass
class FabricConfig(TrainerConfig):
    """Settings under the names of the trainer's own, and the betas computed from two of them."""

    device: str = "cpu"
    max_train_steps: int = 6
    learning_rate: float = 1e-2
    beta1: float = 0.8
    beta2: float = 0.9
    save_step_interval: int = 2
    tensorboard: bool = False

    @property
    def betas(self) -> tuple[float, float]:
        return (self.beta1, self.beta2)


class Fabricated(FabricTrainer):
    """A loop with Fabric that counts its steps itself, and resumes as DarwinKit's do."""

    def __init__(self, model: Net, tokenizer: Any, config: FabricConfig, **kwargs: Any) -> None:
        self.tokenizer = tokenizer
        super().__init__(model, config, **kwargs)
        self.max_step = config.max_train_steps
        self.current_step = 0
        self.save_step_interval = config.save_step_interval

    def _get_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.config.learning_rate, betas=self.config.betas)

    def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
        self.fabric.launch()
        optimizer = self._get_optimizer()
        self.seen = []
        if self.resume:
            _, optimizer, done = self._load_checkpoint(self.model, optimizer)
            self.loaded = done, len(optimizer.state_dict()["state"])
            if self.resume_key == self.config.name:
                self.current_step = done
        model = self.fabric.setup(self.model)
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        loader = self.fabric.setup_dataloaders(DataLoader(train_dataset, batch_size=4))
        for x, y in cycle(loader):
            if self.current_step >= self.config.max_train_steps:
                break
            loss = F.mse_loss(model(x), y)
            self.fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            self._auto_save_pretrained()
            self.log(LogFieldnames(step=self.current_step, train_loss=loss.item()))
            self.seen.append(self.current_step)
            self.current_step += 1


def fabricated(name: str, *, steps: int = 6, resume: str | None = None) -> Fabricated:
    return Fabricated(net(), byte_tokenizer(), FabricConfig(name=name, max_train_steps=steps), resume=resume)


def test_a_loop_with_fabric_is_saved_logged_and_resumed_as_if_it_had_not_stopped() -> None:
    with fabricated("whole") as whole:
        whole.train(samples(4))  # one batch, so that the order of the data is the same
    run = darkit.load("whole")
    assert (run.status, run.details.step, run.details.max_step, saved("whole")) == ("finished", 6, 6, [2, 4, 6])
    assert run.log()["step"].to_list() == list(range(6))
    assert run.trainer_config["betas"] == [0.8, 0.9]
    assert run.trainer_config["max_step"] == 6  # what the trainer has set, and the config has not
    assert run.model_class == "tests.core.parts.Net"
    assert (run.path / "tokenizer.json").exists()
    assert all(find_problem(checkpoint) == "" for checkpoint in run.checkpoints())

    fabricated("parts", steps=4).train(samples(4))
    again = fabricated("parts", resume="parts:iter-4-ckpt")
    assert (again.resume, again.resume_key, again.resume_ckpt) == ("parts:iter-4-ckpt", "parts", "iter-4-ckpt")
    again.train(samples(4))
    assert (again.seen, again.loaded) == ([4, 5], (4, 4))
    assert saved("parts") == [2, 4, 6]
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    predicter = darkit.core.Predicter.from_pretrained("parts", device="cpu")
    assert torch.equal(predicter.predict(torch.ones(1, 4)), whole.model(torch.ones(1, 4)).detach())


def test_another_name_starts_from_the_weights_and_the_optimizer_that_the_loop_loads() -> None:
    fabricated("first", steps=2).train(samples(4))
    other = fabricated("second", steps=2, resume="first")
    other.train(samples(4))
    assert (other.seen, other.loaded) == ([0, 1], (2, 4))  # its own steps, after the two of the other run
    assert saved("second") == [2]


def test_a_loop_without_resume_keeps_what_it_has() -> None:
    trainer = fabricated("none")
    optimizer = trainer._get_optimizer()
    assert trainer._load_checkpoint(trainer.model, optimizer) == (trainer.model, optimizer, 0)
    assert trainer.resume is None
    assert trainer.resume_key is None


@pytest.mark.parametrize("name", ["max_step", "eval_iters", "eval_step_interval", "save_step_interval"])
def test_a_setting_is_an_attribute_that_changes_this_trainer_and_not_the_config(name: str) -> None:
    trainer = loop(name="set")
    assert getattr(trainer, name) == getattr(trainer.config, name)
    before = getattr(trainer.config, name)
    setattr(trainer, name, 3)
    assert (getattr(trainer, name), getattr(trainer.config, name)) == (3, before)
    trainer.train(samples(16))
    assert darkit.load("set").trainer_config[name] == 3
    with pytest.raises(ConfigError, match=f"{name} must be"):
        setattr(trainer, name, "often")


def test_settings_of_the_class_and_before_the_config_count_too() -> None:
    class Often(Loop):
        save_step_interval = 2

        def __init__(self, *arguments: Any, **kwargs: Any) -> None:
            self.max_step = 5
            super().__init__(*arguments, **kwargs)

    loop(Often, name="often").train(samples(24))
    assert saved("often") == [2, 4, 5]
    assert (darkit.load("often").trainer_config["save_step_interval"], darkit.load("often").details.max_step) == (2, 5)


def test_an_evaluation_uses_the_attributes() -> None:
    class Evaluated(Loop):
        def on_step(self, step: int, loss: Any) -> None:
            self.counted = self.counted + 1 if "counted" in vars(self) else 1
            self._auto_validate(self.batches)

    class Batches:
        drawn = 0

        def __iter__(self) -> Any:
            for batch in DataLoader(samples(40), batch_size=4):
                self.drawn += 1
                yield batch

    trainer = loop(Evaluated, name="evaluated", loss=F.mse_loss)
    trainer.eval_iters, trainer.eval_step_interval, trainer.batches = 2, 3, Batches()
    trainer.train(samples(24))
    log = darkit.load("evaluated").log()
    assert log.filter(log["val_loss"].is_not_null())["step"].to_list() == [3, 6]
    assert trainer.batches.drawn <= 2 * 3  # two batches, and at most one read ahead


def test_the_device_is_an_attribute() -> None:
    trainer = loop(name="device")
    assert trainer.device == "cpu"
    trainer.device = torch.device("cpu")
    assert trainer.device == torch.device("cpu")
    with pytest.raises(ConfigError, match="device must be one of auto, cpu, cuda, mps, not 'meta'"):
        trainer.device = "meta"


def test_the_engine_trains_with_the_attributes() -> None:
    class Engine(Trainer):
        pass

    trainer = loop(Engine, name="engine", loss=F.mse_loss)
    trainer.max_step, trainer.save_step_interval = 3, 2
    trainer.train(samples(24))
    assert saved("engine") == [2, 3]


def test_the_tokenizer_may_be_set_before_and_after_the_constructor() -> None:
    trainer = loop(name="talks")
    assert trainer.tokenizer is None
    trainer.tokenizer = byte_tokenizer()
    trainer.train(samples(24))
    assert darkit.core.Predicter.get_tokenizer("talks").get_vocab_size() == trainer.tokenizer.get_vocab_size()


def test_paths_name_the_files_of_the_run() -> None:
    trainer = loop(name="paths")
    assert not trainer.is_name_exist
    assert not base().exists()
    trainer.train(samples(24))
    assert trainer.is_name_exist
    assert trainer.modle_config_save_path == trainer.model_config_save_path == base() / "paths" / "config.json"
    assert trainer.external_config_save_path == base() / "paths" / "run.json"
    for path in (trainer.model_config_save_path, trainer.trainer_config_save_path, trainer.external_config_save_path):
        assert path.is_file()
    assert trainer.model_code_archive_path.read_text().startswith("class Net")
    assert trainer.tokenizer_save_path == base() / "paths" / "tokenizer"
    nameless = Loop(net(), LoopConfig())
    assert not nameless.is_name_exist


def test_an_exception_that_the_caller_catches_is_written_into_the_run(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Loop):
        def on_step(self, step: int, loss: Any) -> None:
            if step == 2:
                raise RuntimeError("the third step")

    with loop(Failing, name="fails") as trainer:
        try:
            trainer.train(samples(24))
        except RuntimeError as error:
            trainer.log_exception(error)
    text = (base() / "fails" / "exception.log").read_text()
    assert "on_step" in text
    assert "RuntimeError: the third step\n" in text
    assert darkit.load("fails").status == "crashed"
    with caplog.at_level(logging.ERROR):
        loop(name="never").log_exception(ValueError("before the run"))
    assert "ValueError: before the run" in caplog.text
    assert not (base() / "never").exists()


def test_a_save_with_a_name_is_that_step_and_another_name_is_refused() -> None:
    class Saving(Loop):
        def on_step(self, step: int, loss: Any) -> None:
            if step == 1:
                self.save_pretrained("iter-2-ckpt")
            if step == 3:
                self._save_model("complete")
            if step == 4:
                with pytest.raises(ConfigError, match="cannot be called 'best'"):
                    self.save_pretrained("best")

    loop(Saving, name="named").train(samples(24))
    assert saved("named") == [2, 4, 6]


def test_what_a_trainers_own_save_adds_is_in_the_checkpoint() -> None:
    class Adds(Loop):
        def _save_model(self, checkpoint: str = "complete") -> None:
            content = {"model_class": "Net", "state_dict": self.model.state_dict(), "current_step": self.current_step}
            torch.save(content | {"own": torch.arange(3)}, self.save_directory / f"{checkpoint}.pth")
            (self.save_directory / f"{checkpoint}.txt").write_text("beside")
            (self.save_directory / "config.json").write_text("not theirs")

    trainer = loop(Adds, name="adds", save_step_interval=3)
    trainer.train(samples(24))
    trainer._save_model()  # after the end: the last step again
    run = darkit.load("adds")
    assert saved("adds") == [3, 6]
    for checkpoint in run.checkpoints():
        assert find_problem(checkpoint) == ""
        content = torch.load(checkpoint.path, weights_only=True)
        assert content["own"].tolist() == [0, 1, 2]
        assert content["current_step"] == checkpoint.step
        assert content["optimizer_state_dict"]["state"]
        assert (run.path / f"{checkpoint.name}.txt").read_text() == "beside"
    assert run.config == {"inputs": 4, "hidden": 8}
    assert not list(run.path.glob(".*tmp*"))


def test_an_own_save_may_extend_darkits() -> None:
    class Extends(Loop):
        def _save_model(self, checkpoint: str = "complete") -> None:
            super()._save_model(checkpoint)
            path = self.save_directory / f"{checkpoint}.pth"
            torch.save(torch.load(path, weights_only=True) | {"note": "mine"}, path)

    loop(Extends, name="extends").train(samples(24))
    content = torch.load(base() / "extends" / "iter-6-ckpt.pth", weights_only=True)
    assert content["note"] == "mine"
    assert "rng" in content


def test_an_own_save_that_pickles_objects_is_refused() -> None:
    class Pickles(Loop):
        def _save_model(self, checkpoint: str = "complete") -> None:
            torch.save(
                {"state_dict": self.model.state_dict(), "path": Path("x")}, self.save_directory / f"{checkpoint}.pth"
            )

    with pytest.raises(CheckpointUnreadableError, match=r"Pickles._save_model\(\) saves what cannot be read"):
        loop(Pickles, name="pickles", save_step_interval=1).train(samples(24))
    assert torch.load(base() / "pickles" / "iter-1-ckpt.pth", weights_only=True)["current_step"] == 1  # darkit's alone


def test_the_columns_of_the_log_may_be_chosen_by_the_subclass() -> None:
    class Columns(Loop):
        def _init_logger(self, log_fieldnames: Any) -> None:
            super()._init_logger([*log_fieldnames, "extra"])

        def on_step(self, step: int, loss: Any) -> None:
            self.csv_logger.log({"step": step + 1, "extra": 1.0})

    trainer = loop(Columns, name="columns")
    trainer.train(samples(24))
    assert darkit.load("columns").log().columns[-1] == "extra"
    with pytest.raises(ConfigError, match="The log of the run 'columns' exists"):
        trainer._init_logger(["step"])


def test_a_hook_that_is_not_called_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Hooked(Loop):
        def _save_model_config(self) -> None:
            raise AssertionError

    assert "Hooked overrides _save_model_config(), which darkit does not call" in caplog.text
    loop(Hooked, name="hooked").train(samples(24))


def test_the_base_classes_build_the_registered_one_and_others_themselves() -> None:
    class Member(FabricTrainer):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            pass

    class Other(Member):
        pass

    FabricTrainer.register("Net", Member)
    config = LoopConfig(name="family")
    assert type(FabricTrainer(net(), config)) is type(Trainer(net(), config)) is Member
    assert type(Other(net(), config)) is Other
    Trainer.register("Net", Other)
    assert type(Member(net(), config)) is Member


def test_betas_that_a_config_computes_cannot_be_set() -> None:
    with pytest.raises(ConfigError, match=r"betas is computed by FabricConfig, so it cannot be set to \(0, 0\)"):
        darkit.fit(net(), samples(8), config=FabricConfig(), loss=F.mse_loss, betas=(0, 0))
    with pytest.raises(ConfigError, match="betas must each be from 0 to below 1"):
        FabricConfig(beta1=2)
    run = darkit.fit(
        net(), samples(8), config=FabricConfig(name="computed", max_step=1, learning_rate=1e-3), loss=F.mse_loss
    )
    content = torch.load(run.path / "iter-1-ckpt.pth", weights_only=True)
    assert content["optimizer_state_dict"]["param_groups"][0]["betas"] == (0.8, 0.9)
