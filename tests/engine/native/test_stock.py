"""A LightningModule in `darkit.fit` ends with the weights of a stock trainer, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import darkit
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.errors import ConfigError, DataError
from tests.engine.native.modules import (
    KINDS,
    Base,
    Gan,
    Metrics,
    same,
    samples,
    train_loader,
    train_run,
    train_stock,
    val_loader,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_a_stock_trainer(kind: str) -> None:
    stock = train_stock(kind, max_epochs=3)
    module, run = train_run(kind, "run", max_epochs=3)
    assert same(weights(module), weights(stock))
    assert run.status == "finished"
    _, content = read_run_checkpoint(run.path)
    assert same(content["state_dict"], weights(stock))


def test_the_log_has_what_the_module_logs(tmp_path: Path) -> None:
    class Stock(lightning.pytorch.loggers.CSVLogger):
        rows: list[dict[str, float]] = []  # noqa: RUF012

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            self.rows.append({**metrics, "at": step})

    module = Metrics()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=(logger := Stock(tmp_path)),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    lightning.seed_everything(0, verbose=False)
    torch.manual_seed(5)
    before = weights(module)
    lightning.seed_everything(0, verbose=False)
    trainer.fit(module, train_loader(), val_loader())
    other = Metrics()
    other.load_state_dict(before)
    run = darkit.fit(other, train_loader(), val_loader(), name="run", max_epochs=2, device="cpu")
    logged = run.log()
    names = {name for row in logger.rows for name in row} - {"epoch", "at"}
    assert names <= set(logged.columns)
    assert {"accuracy_step", "accuracy_epoch", "mean", "val_accuracy", "largest", "sum", "extra"} <= set(logged.columns)
    assert logged["step"].to_list() == list(range(1, 15))
    for name in names:
        expected = {row["at"] + 1: row[name] for row in logger.rows if name in row}
        found = {step: value for step, value in logged.select("step", name).iter_rows() if value is not None}
        assert found == pytest.approx(expected), name


class Peaks(Base):
    """Logs a buffer that it changes in place, by reductions that return one of their arguments or a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("height", torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.height.fill_((3.0, 5.0, 1.0, 4.0, 2.0, 6.0, 3.5)[batch_idx % 7])
        for name, reduce in (("max", max), ("min", min), ("torch_max", torch.max), ("sum", sum), ("mean", "mean")):
            self.log(name, self.height, on_step=False, on_epoch=True, reduce_fx=reduce)
        self.log("now", self.height, on_step=True, on_epoch=False)
        return self.loss(batch)


def test_a_logged_buffer_that_changes_later_does_not_change_what_was_logged() -> None:
    class Ends(lightning.Callback):
        def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            pl_module.height.fill_(100.0)

    found = []
    for train in (fit_stock, fit_darkit):
        module = Peaks()
        found.append({name: float(value) for name, value in train(module, Ends()).items()})
    stock, ours = found
    assert {name: ours[name] for name in stock} == stock


def fit_stock(module: Peaks, callback: lightning.Callback) -> Any:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train_loader())
    return trainer.callback_metrics


def fit_darkit(module: Peaks, callback: lightning.Callback) -> Any:
    run = darkit.fit(module, train_loader(), name="run", max_epochs=1, device="cpu", callbacks=[callback])
    last = run.log().tail(1)
    return {name: last[name][0] for name in ("max", "min", "torch_max", "sum", "mean", "now")}


def test_both_optimizers_steps_count() -> None:
    module, run = train_run("gan", "run", max_epochs=None, max_step=11, save_step_interval=5)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [6, 10, 12]
    assert run.details.step == 12
    assert isinstance(module, Gan)


def test_settings_of_the_module_are_refused_beside_it() -> None:
    for settings, said in (
        ({"lr": 0.5}, "lr"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"loss": lambda outputs, target: outputs.mean()}, "loss"),
        ({"ema_decay": 0.9}, "EMAWeightAveraging"),
        ({"early_stop_patience": 3}, "EarlyStopping"),
        ({"compile": True}, "torch.compile"),
        ({"eval_step_interval": 0}, "limit_val_batches=0"),
        ({"eval_step_interval": 5, "val_check_interval": 3}, "give one of them"),
        ({"strategy": "fsdp"}, "strategy"),
    ):
        with pytest.raises(ConfigError, match=said):
            darkit.fit(Base(), train_loader(), name="run", max_step=2, device="cpu", **settings)
        assert not darkit.runs()


def test_trainer_arguments_are_for_lightning_modules_only() -> None:
    with pytest.raises(ConfigError, match="val_check_interval"):
        darkit.fit(torch.nn.Linear(4, 3), samples(), val_check_interval=3, max_step=1, device="cpu")


def test_an_optimizer_that_lightning_does_not_count_is_refused() -> None:
    class Direct(Base):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: object, batch_idx: int) -> None:
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

    with pytest.raises(ConfigError, match=r"self\.optimizers\(\)"):
        darkit.fit(Direct(), train_loader(), name="run", max_step=5, device="cpu")


def test_a_data_module_is_used_wholly() -> None:
    calls: list[str] = []

    class Data(lightning.LightningDataModule):
        def prepare_data(self) -> None:
            calls.append("prepare")

        def setup(self, stage: Any) -> None:
            calls.append(f"setup {stage.value!s}")

        def train_dataloader(self) -> object:
            return torch.utils.data.DataLoader(samples(), 6, shuffle=True)

        def val_dataloader(self) -> object:
            return [torch.utils.data.DataLoader(samples(12), 6), torch.utils.data.DataLoader(samples(6), 6)]

        def on_after_batch_transfer(self, batch: object, dataloader_idx: int) -> object:
            calls.append("transfer")
            return batch

        def teardown(self, stage: Any) -> None:
            calls.append(f"teardown {stage.value!s}")

    class Two(Base):
        def validation_step(self, batch: object, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("val_loss", self.loss(batch))

    run = darkit.fit(Two(), Data(), name="run", max_epochs=1, device="cpu")
    assert calls[:2] == ["prepare", "setup fit"]
    assert calls[-1] == "teardown fit"
    assert "transfer" in calls
    assert {"val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1"} <= set(run.log().columns)
    with pytest.raises(DataError, match="val_dataloader"):
        darkit.fit(Two(), Data(), samples(), name="other", max_epochs=1, device="cpu")


def test_a_checkpoint_is_one_of_lightnings_too(tmp_path: object) -> None:
    _, run = train_run("schedules", "run", max_epochs=2, save_step_interval=5)
    path = run.path / "iter-10-ckpt.pth"
    loaded = Base.load_from_checkpoint(path, weights_only=True)
    assert loaded.hparams["width"] == 8
    again = KINDS["schedules"][0]()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(again, train_loader(), val_loader(), ckpt_path=path, weights_only=True)
    assert trainer.global_step == 14
    assert next(config.scheduler.last_epoch for config in trainer.lr_scheduler_configs) == 4


def test_rows_come_at_the_interval_and_when_something_is_logged() -> None:
    class Quiet(Base):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch)

    run = darkit.fit(Quiet(), train_loader(), val_loader(), name="run", max_epochs=3, log_step_interval=3, device="cpu")
    assert run.log()["step"].to_list() == [3, 6, 7, 9, 12, 14, 15, 18, 21]  # 7, 14 and 21 are validated
    assert run.log()["train_loss"].null_count() == 0
    assert run.log()["val_loss"].drop_nulls().len() == 3


def test_a_module_may_log_its_own_rate() -> None:
    class Rate(Base):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("lr", 0.25)
            return self.loss(batch)

    run = darkit.fit(Rate(), train_loader(), name="run", max_steps=3, device="cpu")
    assert run.log()["lr"].to_list() == [0.25] * 3
