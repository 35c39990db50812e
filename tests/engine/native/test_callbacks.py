"""Lightning's own callbacks in `fit`, for a plain module and a LightningModule, against a stock trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import callbacks as stock
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ExponentialLR

import darkit
from darkit.errors import ConfigError
from tests.engine.native.modules import same, samples, train_loader, val_loader, weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore:No config of")
EPOCHS = 4


class Net(nn.Module):
    """A plain module with a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


class Lit(lightning.LightningModule):
    """The same as a LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)
        self.example_input_array = torch.zeros(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([value for value in self.parameters() if value.requires_grad], lr=0.1)


class Notes(lightning.Callback):
    """Uses what callbacks of people use: log, hparams, attributes, callback_metrics, logger, datamodule."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        pl_module.log("norm", pl_module.head.weight.norm())
        self.seen += [
            dict(pl_module.hparams),
            trainer.callback_metrics["val_loss"],
            trainer.logger.name,
            trainer.datamodule,
        ]

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.seen.append(trainer.sanity_checking)


CALLBACKS: dict[str, Callable[[Path], lightning.Callback]] = {
    "EarlyStopping": lambda folder: stock.EarlyStopping("val_loss", patience=1, min_delta=0.05),
    "ModelCheckpoint": lambda folder: stock.ModelCheckpoint(folder, monitor="val_loss", save_top_k=2),
    "OnExceptionCheckpoint": lambda folder: stock.OnExceptionCheckpoint(folder),
    "LearningRateMonitor": lambda folder: stock.LearningRateMonitor(),
    "DeviceStatsMonitor": lambda folder: stock.DeviceStatsMonitor(cpu_stats=True),
    "StochasticWeightAveraging": lambda folder: stock.StochasticWeightAveraging(0.05, swa_epoch_start=2, device=None),
    "EMAWeightAveraging": lambda folder: stock.EMAWeightAveraging(decay=0.8),
    "GradientAccumulationScheduler": lambda folder: stock.GradientAccumulationScheduler({0: 1, 2: 3}),
    "BackboneFinetuning": lambda folder: stock.BackboneFinetuning(2, verbose=False),
    "ModelPruning": lambda folder: stock.ModelPruning("l1_unstructured", amount=0.3, parameters_to_prune=None),
    "Timer": lambda folder: stock.Timer("00:01:00:00"),
    "RichProgressBar": lambda folder: stock.RichProgressBar(),
    "TQDMProgressBar": lambda folder: stock.TQDMProgressBar(),
    "RichModelSummary": lambda folder: stock.RichModelSummary(),
    "ThroughputMonitor": lambda folder: stock.ThroughputMonitor(lambda batch: len(batch[0]), window_size=2),
    "LambdaCallback": lambda folder: stock.LambdaCallback(on_validation_end=lambda trainer, module: None),
    "Notes": lambda folder: Notes(),
}


def stock_weights(callback: lightning.Callback, before: dict[str, Tensor]) -> dict[str, Tensor]:
    module = Lit()
    module.load_state_dict(before)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=lightning.pytorch.loggers.logger.DummyLogger(),
        callbacks=[callback],
        enable_checkpointing=isinstance(callback, stock.Checkpoint),
        enable_progress_bar=isinstance(callback, stock.ProgressBar),
        enable_model_summary=isinstance(callback, stock.ModelSummary),
        log_every_n_steps=2,
    )
    lightning.seed_everything(0, verbose=False)
    trainer.fit(module, train_loader(), val_loader())
    return weights(module)


@pytest.mark.parametrize("kind", ["plain", "lightning"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_it_works_as_in_a_stock_trainer(name: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    before = weights(Net())
    expected = stock_weights(CALLBACKS[name](tmp_path / "stock"), before)
    module: nn.Module = Net() if kind == "plain" else Lit()
    module.load_state_dict(before)
    settings: dict[str, Any] = {"max_epochs": EPOCHS, "device": "cpu", "log_step_interval": 2}
    callback = CALLBACKS[name](tmp_path / "ours")
    if kind == "plain":
        settings |= {"loss": cross_entropy, "eval_step_interval": 7}
        settings["optimizer"] = lambda parameters: torch.optim.SGD([v for v in parameters if v.requires_grad], lr=0.1)
    run = darkit.fit(module, train_loader(), val_loader(), name="run", callbacks=[callback], **settings)
    assert run.status == "finished"
    if name in ("GradientAccumulationScheduler", "StochasticWeightAveraging", "EarlyStopping") and kind == "plain":
        return  # validates by steps, not by epochs
    assert same(weights(module), expected)
    if name == "ModelCheckpoint":
        assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == sorted(
            path.name for path in (tmp_path / "stock").iterdir()
        )
    if name == "EMAWeightAveraging":
        from darkit.engine.checkpoints.checkpoint import read_run_checkpoint

        assert same(read_run_checkpoint(run.path)[1]["state_dict"], expected)
    if name == "LearningRateMonitor":
        assert "lr-SGD" in run.log().columns
    if name == "Notes":
        assert "norm" in run.log().columns
        assert isinstance(callback, Notes)
        assert callback.seen[-2:] == ["run", None]


@pytest.mark.parametrize("kind", ["plain", "lightning"])
def test_early_stopping_ends_the_run_with_its_reason(kind: str) -> None:
    callback = stock.EarlyStopping("val_loss", patience=0, min_delta=10.0)
    settings: dict[str, Any] = {"loss": cross_entropy, "eval_step_interval": 3} if kind == "plain" else {}
    module = Net() if kind == "plain" else Lit()
    run = darkit.fit(
        module, train_loader(), val_loader(), name="run", callbacks=[callback], max_epochs=9, device="cpu", **settings
    )
    assert run.status == "finished"
    assert "EarlyStopping stopped the training at step" in run.details.reason
    assert run.details.step == (6 if kind == "plain" else 14)


def test_a_plain_module_goes_on_exactly_under_lightnings_loop() -> None:
    def fit(name: str, *callbacks: lightning.Callback, **settings: Any) -> Net:
        torch.manual_seed(2)
        module = Net()
        darkit.fit(
            module,
            samples(),
            samples(20),
            name=name,
            loss=cross_entropy,
            scheduler="cosine",
            lr=0.01,
            max_step=30,
            batch_size=6,
            eval_step_interval=4,
            device="cpu",
            callbacks=[stock.EMAWeightAveraging(decay=0.8), *callbacks],
            **settings,
        )
        return module

    class Fail(lightning.Callback):
        def on_before_backward(self, trainer: lightning.Trainer, *arguments: Any) -> None:
            if trainer.global_step == 17:
                raise RuntimeError("broke")

    straight = fit("straight")
    with pytest.raises(RuntimeError, match="broke"):
        fit("run", Fail())
    module = fit("run", resume="auto")
    assert same(weights(module), weights(straight))
    logs = [darkit.load(name).log().drop("time") for name in ("run", "straight")]
    assert logs[0].select(sorted(logs[0].columns)).equals(logs[1].select(sorted(logs[1].columns)))
    assert logs[0].filter(logs[0]["val_loss"].is_not_null())["step"].to_list() == [4, 8, 12, 16, 20, 24, 28, 30]


def test_the_validation_of_a_plain_module_is_darkits() -> None:
    """The weighted mean over the batches, the same as in darkit's own loop."""
    torch.manual_seed(2)
    module = Net()
    other = copy.deepcopy(module)
    settings: dict[str, Any] = {"loss": cross_entropy, "max_step": 8, "batch_size": 6, "eval_step_interval": 4}
    settings |= {"device": "cpu", "optimizer": "sgd", "lr": 0.1}
    fast = darkit.fit(module, samples(), samples(20), name="fast", **settings)
    slow = darkit.fit(other, samples(), samples(20), name="slow", callbacks=[stock.LearningRateMonitor()], **settings)
    assert same(weights(module), weights(other))
    assert fast.log()["val_loss"].to_list() == slow.log()["val_loss"].to_list()
    assert fast.log()["train_loss"].to_list() == slow.log()["train_loss"].to_list()


def test_settings_of_the_other_loop_are_refused_beside_such_a_callback() -> None:
    for settings, said in (
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps .* LearningRateMonitor"),
        ({"ema_decay": 0.9}, "ema_decay"),
        ({"compile": True}, "compile"),
        ({"scheduler": "cosine", "max_epoch": 2}, "scheduler='cosine' needs max_step beside the callback"),
    ):
        with pytest.raises(ConfigError, match=said):
            darkit.fit(
                Net(), samples(), loss=cross_entropy, callbacks=[stock.LearningRateMonitor()], device="cpu", **settings
            )
    for callback, said in (
        (stock.LearningRateFinder(), "set lr"),
        (stock.BatchSizeFinder(), "set batch_size"),
    ):
        for module in (Net(), Lit()):
            with pytest.raises(ConfigError, match=said):
                darkit.fit(module, samples(), callbacks=[callback], device="cpu")
    assert not darkit.runs()


@pytest.mark.parametrize("kind", ["plain", "lightning"])
def test_other_loggers_get_the_log_too(kind: str, tmp_path: Path) -> None:
    import polars

    settings: dict[str, Any] = {"loss": cross_entropy} if kind == "plain" else {}
    module = Net() if kind == "plain" else Lit()
    run = darkit.fit(
        module, train_loader(), name="run", logger=CSVLogger(tmp_path, "theirs"), max_step=5, device="cpu", **settings
    )
    theirs = polars.read_csv(tmp_path / "theirs" / "version_0" / "metrics.csv")
    assert theirs["train_loss"].to_list() == pytest.approx(run.log()["train_loss"].to_list())
    assert kind == "lightning" or "lr:" in (tmp_path / "theirs" / "version_0" / "hparams.yaml").read_text()
    with pytest.raises(ConfigError, match="logger must be"):
        darkit.fit(module, train_loader(), name="other", logger="csv", max_step=5, device="cpu", **settings)


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rate": ({}, {"lr": 0.1}),
    "rate of a schedule": ({"scheduler": "cosine"}, {"lr": 0.1}),
    "rate of the user's schedule": ({"scheduler": lambda made: ExponentialLR(made, 0.9)}, {"lr": 0.1}),
    "decay and betas": ({}, {"weight_decay": 0.5, "betas": (0.5, 0.6)}),
    "a schedule": ({}, {"scheduler": "cosine", "warmup_step": 2}),
    "no schedule": ({"scheduler": "linear"}, {"scheduler": "constant"}),
    "a longer schedule": ({"scheduler": "cosine"}, {}),
    "optimizer": ({}, {"optimizer": "sgd", "resume_overrides": True}),
    "kernel": ({}, {"fused": True, "resume_overrides": True}),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("change", CHANGES)
def test_a_fork_beside_a_callback_trains_with_what_it_changed_as_in_darkits_own_loop(change: str) -> None:
    before, changed = CHANGES[change]
    found = []
    for kind in ("own", "lightnings"):
        settings: dict[str, Any] = {"loss": cross_entropy, "batch_size": 6, "device": "cpu", "lr": 0.01, "fused": False}
        settings |= before | ({"callbacks": [stock.LearningRateMonitor()]} if kind == "lightnings" else {})
        torch.manual_seed(2)
        darkit.fit(Net(), samples(), name=kind, max_step=5, **settings)
        module = Net()
        run = darkit.fit(module, samples(), name=f"{kind}-fork", fork=kind, max_step=9, **settings | changed)
        found.append((weights(module), run.log()["lr"].to_list(), run.fork["changes"]))
    (own, *said), (lightnings, *also_said) = found
    assert same(own, lightnings)
    assert said == also_said


def test_a_resume_beside_a_callback_refuses_another_kernel_or_uses_it() -> None:
    kernels: list[Any] = []

    class Looking(stock.LearningRateMonitor):
        def on_train_start(self, trainer: lightning.Trainer, *rest: Any, **named: Any) -> None:
            kernels.append(bool(trainer.optimizers[0].param_groups[0]["fused"]))

    def fit(max_step: int, **settings: Any) -> None:
        settings |= {"loss": cross_entropy, "device": "cpu", "name": "run", "max_step": max_step}
        darkit.fit(Net(), samples(), callbacks=[Looking()], **settings)

    fit(2, fused=True)
    with pytest.raises(ConfigError, match="other settings: fused True -> False"):
        fit(4, fused=False, resume=True)
    fit(3, resume=True)
    fit(4, fused=False, resume=True, resume_overrides=True)
    assert kernels == [True, True, False]


def test_a_callback_that_sets_rates_itself_refuses_another_rate() -> None:
    settings: dict[str, Any] = {"loss": cross_entropy, "batch_size": 6, "device": "cpu"}
    averaging = stock.StochasticWeightAveraging(0.05, device=None)
    darkit.fit(Net(), samples(), name="run", max_epoch=1, callbacks=[averaging], **settings)
    with pytest.raises(ConfigError, match="lr cannot change beside the callback StochasticWeightAveraging"):
        darkit.fit(Net(), samples(), name="fork", fork="run", max_epoch=2, callbacks=[averaging], lr=0.1, **settings)
