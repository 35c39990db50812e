"""Trainings that one process and two do with the same global batches; each function does several in one group."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import darkit
from darkit.engine.callbacks import StepLog
from darkit.engine.metrics.exchange import averaged
from darkit.errors import NonFiniteLossError
from tests.engine.parts import xy
from tests.engine.ranks import Noting, Numbered, weights_of

LENGTHS = [2, 20, 3, 11, 20, 1, 7, 7, 5, 13]


def tokens(samples: int = 10) -> tuple[Tensor, Tensor]:
    """Rows of which very different numbers of labels count."""
    ids = torch.randint(0, 5, (samples, 20), generator=torch.Generator().manual_seed(0))
    labels = torch.stack([row.where(torch.arange(20) < LENGTHS[i % 10], -100) for i, row in enumerate(ids)])
    return ids, labels


def of_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """Average over the labels that count."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def wrong_share(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of labels that are not found: a mean over samples with a label."""
    return (logits.argmax(-1) != labels).float().mean()


class Rates(lightning.Callback):
    """Keeps the learning rate of every step, in every process."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def train(model: nn.Module, data: Any, val_data: Any, name: str, ranks: int, **settings: Any) -> dict[str, Any]:
    """Train, and return what this process has then."""
    rates = Rates()
    defaults: dict[str, Any] = {"optimizer": "sgd", "lr": 0.3, "max_step": 6, "eval_step_interval": 2}
    darkit.fit(
        model,
        data,
        val_data,
        name=name,
        device="cpu",
        device_num=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        tensorboard=False,
        **(defaults | {"callbacks": [rates]} | settings),
    )
    return {"weights": weights_of(model), "rates": rates.rates}


def started(model: nn.Linear) -> nn.Module:
    nn.init.constant_(model.weight, 0.1)
    nn.init.zeros_(model.bias)
    return model


def embedding() -> nn.Module:
    torch.manual_seed(0)
    return nn.Embedding(5, 5)


class Metered(nn.Module):
    """Its validation returns torchmetrics objects, a count, and a picture of some batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Linear(4, 3)
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(3, average="micro")
        self.area = torchmetrics.classification.MulticlassAUROC(3)

    def training_step(self, batch: list[Tensor]) -> dict[str, Tensor]:
        logits = self.layers(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1]), "wrong": (logits.argmax(1) != batch[1]).float().mean()}

    def validation_step(self, batch: list[Tensor], index: int) -> dict[str, Any]:
        logits = self.layers(batch[0])
        self.accuracy.update(logits, batch[1])
        self.area.update(logits.softmax(1), batch[1])
        pictures = {"pic": darkit.Image(torch.full((3, 4, 4), index / 10))} if index in (1, 2) else {}
        return {
            "loss": F.cross_entropy(logits, batch[1]),
            "index": float(index),
            "largest": logits.max().detach(),  # no mean over samples: right only if the batches are the same
            "accuracy": self.accuracy,
            "area": self.area,
            "count": len(batch[0]),
            **pictures,
        }


def labelled(length: int = 24) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(
        torch.randn(length, 4, generator=generator), torch.randint(0, 3, (length,), generator=generator)
    )


class Rows(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples in order, all of them or every n-th by rank, which darkit cannot know."""

    def __init__(self, dataset: TensorDataset, rank: int = 0, ranks: int = 1) -> None:
        self.dataset, self.rank, self.ranks = dataset, rank, ranks

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.dataset[i] for i in range(self.rank, len(self.dataset), self.ranks))


class Normed(nn.Module):
    """Its running statistics are of the batches that a process saw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layers = nn.BatchNorm1d(4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.norm(x))


class Bad(Noting):
    """Its loss is not finite in one process, from a step on."""

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        loss = super().training_step(batch)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return loss * float("nan") if len(self.ids) == 3 and rank == 1 else loss


class Drawing(Noting):
    """Draws a random number in every step."""

    def training_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": super().training_step(batch), "drawn": torch.rand(())}


class Draws(lightning.Callback):
    """Keeps what this process drew."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.drawn.append(float(outputs["drawn"]))


def trainings(ranks: int = 1) -> dict[str, Any]:
    """Train everything that ends with the weights of one process; the global batch has four samples."""
    data, half = tokens(), 4 // ranks
    found: dict[str, Any] = {}
    common: dict[str, Any] = {"ranks": ranks, "loss": of_tokens, "metrics": {"wrong": wrong_share}}
    found["accumulated"] = train(
        embedding(), data, data, "accumulated", batch_size=1, gradient_accumulation_steps=half, **common
    )
    found["clipped"] = train(
        embedding(), data, data, "clipped", batch_size=half, gradient_clip=0.05, ema_decay=0.7, **common
    )
    found["plateau"] = train(
        embedding(),
        data,
        data,
        "plateau",
        batch_size=half,
        max_step=12,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.1),
        monitor="val_loss",
        **common,
    )
    found["early"] = train(
        embedding(),
        data,
        data,
        "early",
        batch_size=half,
        max_step=40,
        lr=30.0,
        early_stop_patience=2,
        monitor="wrong",
        **common,
    )
    for step in (3, 6):
        found["resumed"] = train(
            embedding(),
            data,
            data,
            "resumed",
            batch_size=1,
            gradient_accumulation_steps=half,
            max_step=step,
            resume="auto",
            **common,
        )
    draws = Draws()
    train(Drawing(), Numbered(12), None, "drawn", ranks=ranks, batch_size=half, callbacks=[draws])
    found["drawn"] = draws.drawn
    found["native"] = train(
        started(nn.Linear(4, 1)),
        xy(16),
        xy(6),
        "native",
        ranks,
        batch_size=half,
        loss=F.mse_loss,
        callbacks=[lightning.pytorch.callbacks.LearningRateMonitor()],
    )
    found["uneven"] = train(Noting(), Numbered(13), Numbered(7), "uneven", ranks=ranks, batch_size=half, max_step=8)
    return found


def validations(ranks: int = 1) -> dict[str, Any]:
    """Validate on data of every kind; the validation batches have three samples."""
    found: dict[str, Any] = {}
    data, val = labelled(), labelled(20)
    common: dict[str, Any] = {"ranks": ranks, "batch_size": 3, "max_step": 2, "eval_step_interval": 1}
    own = {"accuracy": torchmetrics.classification.MulticlassAccuracy(3, average="micro")}

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(4, 3)

    def plain(name: str, val_data: Any, **settings: Any) -> None:
        found[name] = train(
            model(), data, val_data, name, loss=F.cross_entropy, metrics=own, **(common | {"lr": 0.0} | settings)
        )

    plain("limited", val, eval_iters=5)
    plain("single", labelled(3))  # one batch: no process may be left without
    plain("loader", DataLoader(val, batch_size=3, shuffle=True))
    plain("stream", Rows(val))
    if ranks > 1:
        rank = torch.distributed.get_rank()
        plain("divided", DataLoader(Rows(val, rank, ranks), batch_size=3))
        plain("sampler", DataLoader(val, batch_size=3, sampler=DistributedSampler(val, ranks, rank)))
    found["metered"] = train(Metered(), data, val, "metered", **(common | {"lr": 0.0}))
    found["normed"] = train(Normed(), xy(24), xy(20), "normed", loss=F.mse_loss, **(common | {"max_step": 3}))
    return found


def stock(ranks: int, folder: str) -> dict[str, Any]:
    """Log with darkit's callback in a stock trainer; more rows than a block has."""

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = started(nn.Linear(4, 1))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> dict[str, Tensor]:
            loss = F.mse_loss(self.layer(batch[0]), batch[1])
            losses.append(loss.item())
            return {"loss": loss}

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    losses: list[float] = []
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp", max_steps=40, callbacks=[StepLog(Path(folder))], **quiet
    )
    trainer.fit(Module(), DataLoader(TensorDataset(*xy(16)), batch_size=2))
    return {"losses": losses}


class AskOnce(lightning.Callback):
    """Sends this process a signal in the fifth step, if it is the last of several."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5 and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped(ranks: int) -> dict[str, Any]:
    """Train until one process is asked to stop."""
    model = Noting()
    train(model, Numbered(24), None, "stopped", ranks, batch_size=2, max_step=1000, callbacks=[AskOnce()])
    return {"batches": len(model.ids)}


def uneven_rows(ranks: int) -> dict[str, Any]:
    """Average rows of which each process has other values."""
    del ranks
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    device = torch.device("cpu")
    own = {"both": (torch.tensor(float(rank)), 1.0 + 2 * rank), "count": (4, 1.0), f"of_{rank}": (7.0, 2.0)}
    unlike = averaged({1: own, 2 + rank: {"both": (1.0, 1.0)}}, device)
    alike = averaged({1: {"both": own["both"], "nothing": (math.nan, 0.0), "count": (4, 1.0)}}, device)
    return {"unlike": unlike, "alike": alike}


def not_finite(ranks: int) -> dict[str, Any]:
    """Train with a loss that is not finite in one of the processes."""
    model = Bad()
    try:
        train(model, Numbered(24), None, "bad", ranks, batch_size=2, save_step_interval=1)
    except NonFiniteLossError as error:
        return {"said": str(error), "batches": len(model.ids)}
    return {}


def forked(ranks: int, strategy: str = "ddp") -> dict[str, Any]:
    """Train a run, and a fork of it from the middle of an epoch."""
    settings: dict[str, Any] = {"max_step": 6, "batch_size": 2, "save_step_interval": 1, "lr": 0.01}
    for name, fork in (("parent", None), ("child", "parent:3")):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        processes = {"device": "cpu", "device_num": ranks, "strategy": strategy}
        darkit.fit(model, xy(24), loss=F.mse_loss, name=name, fork=fork, tensorboard=False, **processes, **settings)
    return {}
