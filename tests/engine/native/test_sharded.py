"""LightningModules in parts: split by darkit, or by their own ``configure_model``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import darkit
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.errors import ConfigError
from darkit.runs import Run
from tests.children import Zygote
from tests.engine.ranks import on_ranks


class Split(lightning.LightningModule):
    """A regression with a schedule and two groups of parameters; its step calls parts of it."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(6, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        for layer in self.layers:
            x = self.dropout(torch.tanh(layer(x)))
        loss = F.mse_loss(self.head(x), y)
        self.log("loss_of_step", loss, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx), sync_dist=True)

    def configure_optimizers(self) -> Any:
        groups = [{"params": self.layers.parameters()}, {"params": self.head.parameters(), "lr": 0.02}]
        optimizer = torch.optim.AdamW(groups, lr=0.05)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.7)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class OwnSplit(Split):
    """Splits itself, as one whole."""

    def configure_model(self) -> None:
        for part in (*self.layers, self.head):
            fully_shard(part, mesh=self.device_mesh["data_parallel"])


class ByHand(Split):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


def samples() -> TensorDataset:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(1, keepdim=True))


def train(name: str, ranks: int, model: nn.Module, **settings: Any) -> Run:
    several = {"device_num": ranks, "strategy": "fsdp"}
    given = {"max_step": 5, "save_step_interval": 2, "gradient_accumulation_steps": 2, "gradient_clip": 0.5}
    return darkit.fit(
        model,
        darkit.dataloader(samples(), batch_size=4 // ranks, shuffle=True),
        DataLoader(samples(), batch_size=4 // ranks),
        name=name,
        device="cpu",
        tensorboard=False,
        **(several | given | settings),
    )


def cases(ranks: int) -> None:
    train("copies", ranks, Split(), strategy="ddp")
    train("plain", ranks, Split())
    train("own", ranks, OwnSplit())
    train("straight", ranks, Split(0.3), max_step=7)
    train("broken", ranks, Split(0.3), max_step=4)
    train("broken", ranks, Split(0.3), max_step=7, resume=True)


def test_parts_under_lightnings_loop_end_as_whole_copies_and_resume_exactly(zygote: Zygote, home: Path) -> None:
    on_ranks(zygote, home, cases)
    copies = read_run_checkpoint(home / "base" / "copies")[1]
    for name in ("plain", "own"):
        checkpoint, found = read_run_checkpoint(home / "base" / name)
        assert checkpoint.path.name == "iter-5-ckpt"
        assert found["model_class"].endswith("OwnSplit" if name == "own" else "test_sharded.Split")
        for key in ("state_dict", "optimizer_states", "lr_schedulers"):
            apart = [(path, by) for path, by in differences(copies[key], found[key]) if not by < 1e-5]
            assert apart == [], name
    contents = [read_run_checkpoint(home / "base" / name)[1] for name in ("straight", "broken")]
    ids = [content["darkit"].pop(key) for content in contents for key in ("run", "id")]
    assert len(set(ids)) == 4
    assert list(differences(*contents)) == []
    loaded = Split()
    loaded.load_state_dict(contents[1]["state_dict"])


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (ByHand, {}, "steps its optimizers itself"),
        (Split, {"callbacks": [ModelCheckpoint()]}, "The callback ModelCheckpoint needs whole weights"),
        (Split, {"callbacks": [EMAWeightAveraging()]}, "The callback EMAWeightAveraging needs whole weights"),
        (Split, {"strategy": "deepspeed"}, "strategy='deepspeed' is not supported"),
    ],
    ids=["by hand", "checkpoint", "average", "deepspeed"],
)
def test_what_needs_whole_weights_is_refused_and_leaves_nothing(
    model: type[Split], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train("a", 2, model(), **settings)
    assert not darkit.runs()
