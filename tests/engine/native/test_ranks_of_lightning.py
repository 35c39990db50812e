"""Several processes under Lightning's own loop: what each resumes at, and what they validate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import darkit
from darkit.engine.config import TrainerConfig
from darkit.engine.native.data import NativeData, WholeLoader
from darkit.runs import Run
from tests.children import Zygote
from tests.engine.ranks import on_ranks, weights_of


class Small(lightning.LightningModule):
    """A regression that notes the first numbers of the samples it trains on."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.dropout = dropout
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 1))
        self.seen: list[list[float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch[0][:, 0].tolist())
        return F.mse_loss(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.mse_loss(self.layers(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def samples(count: int) -> TensorDataset:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(1, keepdim=True))


def train(name: str, ranks: int, data: Any, val_data: Any = None, dropout: float = 0.3, **settings: Any) -> Any:
    model = Small(dropout)
    given = {"device": "cpu", "device_num": ranks, "tensorboard": False, "strategy": "ddp"} | settings
    darkit.fit(model, data, val_data, name=name, **given)
    return {"weights": weights_of(model), "seen": model.seen}


def loader(kind: str) -> DataLoader[Any]:
    """22 samples: an epoch of six steps in one process, of three in each of two."""
    settings = {"generator": torch.Generator().manual_seed(3)} if kind == "generator" else {}
    return DataLoader(samples(22), 4, shuffle=True, num_workers=int(kind == "workers"), **settings)


def interrupted(ranks: int, kinds: list[str]) -> Any:
    """Train without an interruption, and with two, both within an epoch."""
    found = {}
    for kind in kinds:
        found[kind, "straight"] = train(f"{kind}-straight", ranks, loader(kind), max_step=8)
        parts = [
            train(f"{kind}-broken", ranks, loader(kind), max_step=last, resume="auto", save_step_interval=2)
            for last in (2, 5, 8)
        ]
        seen = [batch for part in parts for batch in part["seen"]]
        found[kind, "broken"] = {"weights": parts[-1]["weights"], "seen": seen}
    return found


@pytest.mark.parametrize(("ranks", "kinds"), [(1, ["generator"]), (2, ["shuffled", "workers"])])
def test_every_process_resumes_within_an_epoch_as_if_nothing_had_happened(
    ranks: int, kinds: list[str], zygote: Zygote, home: Path
) -> None:
    found = on_ranks(zygote, home, interrupted, ranks=ranks, kinds=kinds)
    for mine in found:
        for kind in kinds:
            straight, broken = mine[kind, "straight"], mine[kind, "broken"]
            assert broken["seen"] == straight["seen"], kind
            for name, value in straight["weights"].items():
                assert torch.equal(value, broken["weights"][name]), (kind, name)
    if ranks == 2:
        assert found[0]["shuffled", "straight"]["seen"] != found[1]["shuffled", "straight"]["seen"]


def validated(ranks: int) -> Any:
    settings = {"dropout": 0.0, "batch_size": 8 // ranks, "max_epoch": 2}
    return train("validated", ranks, samples(24), samples(10), **settings)


def test_datasets_train_and_validate_over_processes_as_in_one(zygote: Zygote, home: Path) -> None:
    one = on_ranks(zygote, home / "one", validated, ranks=1)[0]  # strategy="ddp" there too
    two = on_ranks(zygote, home / "two", validated)
    for mine in two:
        for name, value in one["weights"].items():
            torch.testing.assert_close(mine["weights"][name], value)
    shares = [sorted(first + second) for first, second in zip(two[0]["seen"], two[1]["seen"], strict=True)]
    assert shares == [sorted(batch) for batch in one["seen"]]
    logged, found = (Run(home / way / "base" / "validated").log().drop_nulls("val_loss") for way in ("one", "two"))
    assert found["step"].to_list() == logged["step"].to_list() == [3, 6]
    assert found["val_loss"].to_list() == pytest.approx(logged["val_loss"].to_list(), rel=1e-5)
    x, y = samples(10).tensors
    model = Small(0.0)
    model.load_state_dict(two[0]["weights"])
    assert found["val_loss"][-1] == pytest.approx(F.mse_loss(model.layers(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("settings", [{"device_num": 2}, {"num_nodes": 2}, {"strategy": "ddp"}], ids=str)
@pytest.mark.parametrize("val_data", [samples(10), None], ids=["dataset", "dict"])
def test_lightning_does_not_divide_validation_data_that_darkit_has_put_in_order(settings: Any, val_data: Any) -> None:
    data = {"train": samples(24), "val": samples(10)} if val_data is None else samples(24)
    given = NativeData(data, val_data, TrainerConfig(device="cpu", **settings)).arguments()
    assert isinstance(given["val_dataloaders"], WholeLoader)
