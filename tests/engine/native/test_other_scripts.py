"""Scripts as other people write them for Lightning, with one line for darkit: what they do is done, and is recorded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import matplotlib
import numpy
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

import darkit
from darkit.core import Predicter
from darkit.runs.media import read_media, read_medium
from tests.engine.native.modules import Base, Gan, same, samples, train_loader, weights
from tests.engine.native.test_recorder import Fail, trainer_with

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Painter(Gan):
    """Gives all its loggers images after every epoch, as if each were TensorBoard's."""

    def on_train_epoch_end(self) -> None:
        for logger in self.loggers:
            writer = logger.experiment
            images = torch.tanh(self.made(torch.linspace(-3, 3, 8).reshape(4, 2))).reshape(4, 1, 2, 2)
            writer.add_image("one", images[0], self.current_epoch)
            writer.add_images("several", images, self.current_epoch)
            writer.add_scalar("mean", images.mean(), self.global_step)
            writer.add_scalars("parts", {"a": 1.5, "b": 2.5}, self.global_step)
            writer.add_text("note", "epoch", self.current_epoch)
            writer.add_histogram("made", self.made.weight, self.current_epoch)
            writer.add_audio("tone", torch.sin(torch.arange(100) / 4)[None], self.current_epoch, sample_rate=8000)
            writer.flush()


@pytest.mark.parametrize("way", ["recorder", "fit"])
def test_a_module_draws_for_all_loggers(way: str, tmp_path: Path) -> None:
    own = TensorBoardLogger(str(tmp_path))
    if way == "fit":
        run = darkit.fit(Painter(), train_loader(), name="run", max_epochs=2, device="cpu", logger=own)
    else:
        trainer_with(darkit.RunRecorder("run"), max_epochs=2, logger=own).fit(Painter(), train_loader())
        run = darkit.load("run")
    assert run.status == "finished"
    media = read_media(run.path)
    kinds = {"one": "image", "several": "image", "note": "text", "made": "histogram", "tone": "audio"}
    assert {(medium.key, medium.kind) for medium in media} == set(kinds.items())
    assert [medium.step for medium in media if medium.key == "one"] == [14, 28]  # two optimizers, seven batches
    log = run.log()
    assert log["mean"].drop_nulls().len() == log["parts/b"].drop_nulls().len() == 2


def test_pixels_are_those_of_tensorboard() -> None:
    class Draw(Base):
        def on_train_epoch_end(self) -> None:
            self.logger.experiment.add_image("x", numpy.array([[[-1.0, 0.5, 7.0]]]))
            self.logger.experiment.add_image("y", numpy.zeros((2, 3), numpy.uint8), dataformats="HW")

    run = darkit.fit(Draw(), train_loader(), name="run", max_epochs=1, device="cpu")
    import io

    from PIL import Image as pillow

    shown = {
        medium.key: numpy.array(pillow.open(io.BytesIO(read_medium(run.path, medium))))
        for medium in read_media(run.path)
    }
    assert shown["x"].tolist() == [[0, 127, 255]]
    assert shown["y"].shape == (2, 3)


def test_what_cannot_be_recorded_is_reported_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Draw(Base):
        def on_train_epoch_end(self) -> None:
            self.logger.experiment.add_embedding(torch.ones(2, 2))
            self.logger.experiment.add_image("wrong", torch.ones(5))
            assert self.logger.experiment.name == "run"

    with caplog.at_level(logging.WARNING):
        run = darkit.fit(Draw(), train_loader(), name="run", max_epochs=3, device="cpu")
    assert run.status == "finished"
    assert [("add_embedding" in text, "wrong" in text) for text in caplog.messages].count((True, False)) == 1
    assert [("add_embedding" in text, "wrong" in text) for text in caplog.messages].count((False, True)) == 1


def test_a_figure_is_recorded_and_closed() -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    class Draw(Base):
        def on_train_epoch_end(self) -> None:
            self.logger.experiment.add_figure("f", pyplot.figure(figsize=(1, 1)))

    run = darkit.fit(Draw(), train_loader(), name="run", max_epochs=1, device="cpu")
    assert [medium.kind for medium in read_media(run.path)] == ["image"]
    assert not pyplot.get_fignums()


def test_a_step_may_return_media() -> None:
    class Draw(Base):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.loss(batch), "picture": darkit.Image(torch.zeros(3, 4, 4))}

    run = darkit.fit(Draw(), train_loader(), name="run", max_step=3, device="cpu")
    assert [(medium.key, medium.step) for medium in read_media(run.path)] == [
        ("picture", 1),
        ("picture", 2),
        ("picture", 3),
    ]


def test_the_modules_logger_is_the_one_that_was_given(tmp_path: Path) -> None:
    class Look(Base):
        def on_train_start(self) -> None:
            assert isinstance(self.logger, CSVLogger)
            assert [type(one).__name__ for one in self.loggers] == ["CSVLogger", "RowLogger"]

    darkit.fit(Look(), train_loader(), name="run", max_step=2, device="cpu", logger=CSVLogger(tmp_path))


def test_only_settings_that_hold_are_recorded() -> None:
    lightning.seed_everything(7, verbose=False)
    recorder = darkit.RunRecorder("stock", save_step_interval=5)
    trainer_with(recorder, max_epochs=2, accumulate_grad_batches=2).fit(Base(), train_loader())
    run = darkit.load("stock")
    assert run.info["seed"] == 7
    assert not {"lr", "optimizer", "batch_size", "max_step", "seed", "betas"} & set(run.trainer_config)
    assert run.trainer_config["save_step_interval"] == 5
    assert run.trainer_config["lightning"]["accumulate_grad_batches"] == 2
    run = darkit.fit(Base(), train_loader(), name="own", max_epochs=2, device="cpu")
    assert not {"lr", "optimizer", "batch_size", "max_step", "betas", "ema_decay"} & set(run.trainer_config)
    assert (run.trainer_config["max_epoch"], run.trainer_config["seed"]) == (2, 0)


@pytest.mark.parametrize("way", ["recorder", "fit"])
def test_the_last_step_is_known_from_the_epochs(way: str, capfd: pytest.CaptureFixture[str]) -> None:
    if way == "fit":
        run = darkit.fit(Base(), train_loader(), name="run", max_epochs=2, device="cpu")
        assert "/14" in capfd.readouterr().err
    else:
        trainer_with(darkit.RunRecorder("run"), max_epochs=2).fit(Base(), train_loader())
        run = darkit.load("run")
    assert (run.details.step, run.details.max_step) == (14, 14)
    run = darkit.fit(Gan(), train_loader(), name="gan", max_epochs=2, device="cpu")  # it steps when it likes
    assert (run.details.step, run.details.max_step) == (28, None)


def test_epochs_alone_are_no_limit_of_steps() -> None:
    def fit(name: str, epochs: int, **settings: Any) -> lightning.LightningModule:
        lightning.seed_everything(0, verbose=False)
        module = Base()
        loader = darkit.dataloader(samples(), batch_size=2, seed=3)
        darkit.fit(module, loader, name=name, max_epochs=epochs, device="cpu", log_step_interval=50, **settings)
        return module

    with pytest.raises(RuntimeError, match="broke"):
        fit("run", 52, callbacks=[Fail(1010)])
    assert darkit.load("run").details.step == 1010
    fit("run", 52, resume="auto")
    run = darkit.load("run")
    assert (run.status, run.details.step) == ("finished", 1040)


def test_an_early_stop_has_its_reason() -> None:
    stop = lightning.pytorch.callbacks.EarlyStopping("loss_logged_epoch", patience=0, mode="max", min_delta=100.0)
    trainer_with(darkit.RunRecorder("run"), stop, max_epochs=9).fit(Base(), train_loader())
    run = darkit.load("run")
    assert run.status == "finished"
    assert "EarlyStopping" in run.details.reason


def test_a_shuffled_validation_loader_goes_on_with_its_order() -> None:
    def fit(recorder: darkit.RunRecorder, *callbacks: lightning.Callback) -> None:
        lightning.seed_everything(0, verbose=False)
        val = darkit.dataloader(samples(20), batch_size=6, seed=5)
        trainer_with(recorder, *callbacks, max_epochs=4, limit_val_batches=1).fit(Base(), train_loader(), val)

    fit(darkit.RunRecorder("straight"))
    with pytest.raises(RuntimeError, match="broke"):
        fit(darkit.RunRecorder("run"), Fail(16))
    fit(darkit.RunRecorder("run", resume="auto"))
    one, other = (darkit.load(name).log()["val_loss"].drop_nulls().to_list() for name in ("straight", "run"))
    assert one == other


class Wide(Base):
    """A module whose argument is known from its hyperparameters alone."""

    def __init__(self, width: int = 8, rate: float = 0.1) -> None:
        super().__init__(width + 1)
        self.save_hyperparameters()
        self.rate_of_it = rate


def test_a_module_of_a_command_line_is_rebuilt() -> None:
    module = Wide(width=5)
    module.save_hyperparameters({"width": 5, "rate": 0.2, "_instantiator": "lightning.pytorch.cli.instantiate_module"})
    run = darkit.fit(module, train_loader(), name="run", max_step=2, device="cpu")
    assert run.config == {"width": 5, "rate": 0.2}
    assert Predicter.from_pretrained("run", "cpu").model.net[0].out_features == 6


def test_lightnings_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lightning.pytorch.cli import LightningCLI

    class Data(lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(samples(), 8)

    monkeypatch.chdir(tmp_path)
    cli = LightningCLI(
        Wide,
        Data,
        args=["fit", "--model.width=5", "--trainer.max_epochs=2", "--trainer.accelerator=cpu"],
        seed_everything_default=3,
        trainer_defaults={"callbacks": [darkit.RunRecorder("run")], "enable_progress_bar": False},
    )
    run = darkit.load("run")
    assert (run.status, run.info["seed"], run.config["width"]) == ("finished", 3, 5)
    cli.model.eval()
    x = torch.randn(3, 4)
    assert torch.equal(Predicter.from_pretrained("run", "cpu").model(x), cli.model(x))
    assert same(weights(Predicter.from_pretrained("run", "cpu").model), weights(cli.model))


def test_a_module_may_bring_its_own_data() -> None:
    class Whole(Base):
        def train_dataloader(self) -> Any:
            return DataLoader(samples(), 8)

    assert darkit.fit(Whole(), name="run", max_epochs=1, device="cpu").details.step == 5
    with pytest.raises(lightning.fabric.utilities.exceptions.MisconfigurationException, match="train_dataloader"):
        darkit.fit(Base(), name="other", max_epochs=1, device="cpu")
    with pytest.raises(darkit.errors.DataError, match="NoneType"):
        darkit.fit(torch.nn.Linear(2, 1), name="other", device="cpu")
    assert [one.name for one in darkit.runs()] == ["run"]
