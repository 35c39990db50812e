"""Checkpoints evaluated later as their training evaluated them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import darkit
from darkit.core.watching import watch
from darkit.data.sources.choice import DataChoice
from darkit.prediction.checkpoints import CheckpointEvaluator
from darkit.runs.media import read_media
from darkit.runs.spiking import read_receipt
from tests.engine.spiking import tutorials


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Samples that draw from torch's generator each time they are read."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(3, dtype=torch.float32)  # with 64-true the default may be another
        return torch.full((3,), index / 10, dtype=torch.float32) + noise, torch.ones(3, dtype=torch.float32)


class Normed(nn.Module):
    """A model with state that a training changes, and a dropout that an evaluation must not have."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, size), nn.BatchNorm1d(size), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "64-true"}, {"precision": "bf16-mixed", "eval_iters": 2}, {"ema_decay": 0.5}],
    ids=["plain", "double", "mixed", "averages"],
)
def test_the_values_are_those_of_the_training_bit_for_bit(settings: dict[str, object]) -> None:
    every = {"eval_step_interval": 1, "save_step_interval": 1, "max_step": 4, "batch_size": 4, "device": "cpu"}
    torch.manual_seed(0)
    run = darkit.fit(Normed(), Noisy(), Noisy(), loss=nn.functional.mse_loss, **every, **settings)
    logged = dict(run.log().select("step", "val_loss").iter_rows())
    evaluator = CheckpointEvaluator(run, DataChoice(Noisy(), Noisy(), loss=nn.functional.mse_loss))
    found = {one.step: float(evaluator.evaluate(one)["val_loss"]) for one in run.checkpoints()}
    evaluator.close()
    assert found == logged
    assert len({*found.values()}) == 4


def test_a_spiking_model_has_the_receipt_that_its_training_logs(home: Path) -> None:
    data = tutorials.currents()
    every = {"eval_step_interval": 1, "save_step_interval": 1, "max_step": 3, "batch_size": 8, "device": "cpu"}
    torch.manual_seed(0)
    run = darkit.fit(
        tutorials.FeedForward(), data, data, loss=nn.functional.cross_entropy, ac_energy=0.1, raster_samples=2, **every
    )
    log = run.log()
    evaluator = CheckpointEvaluator(run, DataChoice(TensorDataset(*data), None, loss=nn.functional.cross_entropy))
    watch(run, evaluator.evaluate, into="later", config={}, tell=lambda *told: None)
    evaluator.close()
    later = darkit.load("later")
    columns = [name for name in later.log().columns if name not in ("epoch", "time")]
    assert {"val_loss", "firing_rate", "firing_rate_lif1", "dead_lif2", "synops", "energy_nj"} <= {*columns}
    assert later.log().select(columns).rows() == log.select(columns).rows()
    receipts = [read_receipt(found.path) for found in (run, later)]
    assert receipts[0] is not None
    assert receipts[1] is not None
    assert receipts[0].tables == receipts[1].tables
    files = [{(one.step, one.key, one.file) for one in read_media(found.path)} for found in (run, later)]
    assert files[0] == files[1], "names of files are digests of their content"
