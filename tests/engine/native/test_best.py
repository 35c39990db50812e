"""The best step of a training by Lightning's own loop: the same in all processes, which all load its weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning
import polars
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor, nn

import darkit
from darkit.runs import Run
from tests.children import Zygote
from tests.engine.ranks import Numbered, on_ranks

RATE = 0.1
TURN = 3  # the step after which the validation gets worse


class Passing(lightning.LightningModule):
    """Its weight grows by the rate in every step, past the best one; each process finds another step the best."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        best = TURN - 2 + 3 * self.global_rank  # what the first process finds counts: it writes the log
        value = (self.weight.detach() - RATE * best).square()
        return (value - self.weight + self.weight.detach()).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", (self.weight - RATE * TURN).square().sum())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=RATE)


class Plain(nn.Module):
    """The same without Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any) -> Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: Any) -> Tensor:
        return (self.weight - RATE * TURN).square().sum()


class AskLate(lightning.Callback):
    """Asks the last process to stop once all steps are done."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def weight_after(model: Any, name: str, ranks: int, **settings: Any) -> float:
    given = {"eval_step_interval": 1, "log_step_interval": 2, "max_step": 6, "batch_size": 2, "lr": RATE}
    if isinstance(model, lightning.LightningModule):
        del given["lr"]
    else:
        given |= {"optimizer": "sgd"}
    darkit.fit(
        model,
        Numbered(24),
        Numbered(4),
        name=name,
        device="cpu",
        device_num=ranks,
        tensorboard=False,
        load_best_at_end=True,
        **(given | settings),
    )
    return model.weight.item()


def best_weights(ranks: int = 1) -> dict[str, float]:
    found = {
        "module": weight_after(Passing(), "module", ranks),
        "seldom": weight_after(Passing(), "seldom", ranks, eval_step_interval=3, log_step_interval=100),
        "training": weight_after(Passing(), "training", ranks, monitor="train_loss", log_step_interval=1),
        "plain": weight_after(Plain(), "plain", ranks, callbacks=[LearningRateMonitor()]),
    }
    if ranks > 1:
        found["asked"] = weight_after(Passing(), "asked", ranks, callbacks=[AskLate()])
        found["asked in darkit's loop"] = weight_after(Plain(), "own", ranks, callbacks=[AskLate()])
    return found


def test_all_processes_load_the_step_that_one_process_finds_the_best(zygote: Zygote, home: Path) -> None:
    one = best_weights()
    saved = {run.name: [checkpoint.step for checkpoint in run.checkpoints()] for run in darkit.runs()}
    two = on_ranks(zygote, home / "two", best_weights)
    for name, weight in one.items():
        assert two[0][name] == two[1][name] == weight, name
        run = Run(home / "two" / "base" / name)
        monitor = "train_loss" if name == "training" else "val_loss"
        logged = run.log().filter(polars.col(monitor) == polars.col(monitor).min())["step"].item()
        assert run.info["best"]["step"] == logged == (TURN - 1 if name == "training" else TURN), name
        assert weight == pytest.approx(RATE * logged), name
        assert [checkpoint.step for checkpoint in run.checkpoints()] == saved[name], name
    for name in ("asked", "asked in darkit's loop"):
        last = pytest.approx(6 * RATE)  # a training that is asked to stop keeps its last weights
        assert two[0][name] == two[1][name] == last, name
