"""`RunLogger`: a stock trainer's log as a run, without anything else."""

from __future__ import annotations

import lightning
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

import darkit
from darkit.errors import NameInvalidError, RunExistsError
from darkit.runs.media import read_media
from tests.engine.native.modules import Base, train_loader

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Logging(BoringModel):
    def __init__(self, width: int = 3, fails: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.fails = fails

    def training_step(self, batch: object, batch_idx: int) -> object:
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("loss", loss, on_step=True, on_epoch=True)
        if self.fails and batch_idx == 5:
            raise RuntimeError("broke")
        return loss


def fit(logger: darkit.RunLogger, module: Logging) -> None:
    lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=8,
        limit_val_batches=2,
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module)


def test_a_stock_trainers_log_becomes_a_run() -> None:
    fit(darkit.RunLogger("run"), Logging())
    run = darkit.load("run")
    log = run.log()
    assert run.status == "finished"
    assert run.config == {"width": 3, "fails": False}
    assert log["step"].to_list() == list(range(1, 17))
    assert log["loss_epoch"].drop_nulls().len() == 2
    assert log["epoch"].to_list() == [0] * 8 + [1] * 8


def test_a_failure_is_a_crash_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="broke"):
        fit(darkit.RunLogger("run"), Logging(fails=True))
    assert darkit.load("run").status == "crashed"
    assert "broke" in darkit.load("run").details.traceback


def test_names_are_checked() -> None:
    with pytest.raises(NameInvalidError):
        darkit.RunLogger("a/b")
    fit(darkit.RunLogger("run"), Logging())
    with pytest.raises(RunExistsError):
        fit(darkit.RunLogger("run"), Logging())


def test_a_module_draws_for_it_as_for_tensorboard() -> None:
    class Draw(Base):
        def on_train_epoch_end(self) -> None:
            self.logger.experiment.add_image("drawn", torch.tanh(torch.randn(1, 4, 4)), self.current_epoch)
            self.logger.experiment.add_scalar("own", 2.5, self.current_epoch)

    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    logger = darkit.RunLogger("drawing")
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=2, log_every_n_steps=1, logger=logger, **quiet)
    trainer.fit(Draw(), train_loader())
    run = darkit.load("drawing")
    assert run.status == "finished"
    assert [(one.key, one.step) for one in read_media(run.path)] == [("drawn", 7), ("drawn", 14)]
    assert run.log()["own"].drop_nulls().to_list() == [2.5, 2.5]
