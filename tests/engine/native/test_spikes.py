"""The receipt of a spiking LightningModule: what its first validation batch costs, without effect on the training."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import darkit
from darkit.engine.callbacks import SpikingReceipt
from darkit.engine.data.stateful import StatefulLoader, dataloader
from darkit.engine.spiking.receipt import EnergyCosts, measure
from darkit.runs.media import read_media
from darkit.runs.spiking import ENERGY, read_receipt
from tests.engine.spiking import tutorials

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Spiking(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net: nn.Module = tutorials.FeedForward()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Silent(Spiking):
    """The same without what is measured."""

    def on_fit_start(self) -> None:
        self.trainer.strategy.__dict__.pop("validation_step", None)


def loader(shuffle: bool = True) -> StatefulLoader:
    return dataloader(TensorDataset(*tutorials.currents()), batch_size=8, seed=3, shuffle=shuffle)


def fit(module: Spiking, **more: Any) -> darkit.Run:
    settings: dict[str, Any] = {"max_epochs": 2, "device": "cpu", "raster_samples": 2, **more}
    return darkit.fit(module, loader(), loader(shuffle=False), **settings)


def test_the_first_batch_of_each_validation_is_measured() -> None:
    module = Spiking()
    run = fit(module, name="measured", ac_energy=0.1)
    log = run.log()
    steps = log["step"].filter(log["val_loss"].is_not_null()).to_list()
    assert len(steps) == 2
    for name in ("firing_rate", "firing_rate_net.lif1", "dead_net.lif1", "synops", "energy_nj"):
        assert log["step"].filter(log[name].is_not_null()).to_list() == steps
    first = next(iter(loader(shuffle=False)))
    with torch.no_grad():
        _, expected = measure(module.eval(), lambda: module.net(first[0]), samples=len(first[0]))
    assert expected is not None
    last = log.row(-1, named=True)
    for name, value in expected.values(EnergyCosts(4.6, 0.1, "")).items():
        assert last[name] == pytest.approx(value), name
    assert {one.key for one in read_media(run.path) if one.step == steps[0]} == {
        *("spiking/layers", "spiking/synapses", "spiking/energy", "spiking/raster/0", "spiking/raster/1")
    }
    receipt = read_receipt(run.path)
    assert receipt is not None
    assert receipt.tables[ENERGY].caption == "Set by mac_energy and ac_energy."


def test_nothing_changes_in_the_training() -> None:
    measured, silent = fit(Spiking()).log(), fit(Silent()).log()
    assert "firing_rate" in measured.columns
    assert "firing_rate" not in silent.columns
    for name in ("train_loss", "val_loss"):
        assert measured[name].to_list() == silent[name].to_list()


def test_in_a_stock_trainer_with_a_receipt_of_ones_own() -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[darkit.RunRecorder("run"), SpikingReceipt(samples=[3])],
    )
    trainer.fit(Spiking(), loader(), loader(shuffle=False))
    run = darkit.load("run")
    assert run.log()["firing_rate"].drop_nulls().len() == 1
    assert {one.key for one in read_media(run.path) if "raster" in one.key} == {"spiking/raster/3"}
    assert "validation_step" not in vars(trainer.strategy)
