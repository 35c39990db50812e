"""Loops as other people write them become runs with `darkit.start_run`: they are resumed exactly, and read by name."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import darkit
from darkit.core import Predicter
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.runs.media import read_media


class Broke(Exception):
    pass


class Autoencoder(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width = width
        self.inwards, self.mean, self.spread = nn.Linear(16, width), nn.Linear(width, 2), nn.Linear(width, 2)
        self.outwards = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 16), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = F.relu(self.inwards(x))
        mean, spread = self.mean(hidden), self.spread(hidden)
        return self.outwards(mean + torch.randn_like(mean) * spread.exp()), mean, spread


def train_autoencoder(name: str, until: int = 99) -> None:
    """Count epochs as steps, shuffle with the global generator, and log a picture after every epoch."""
    torch.manual_seed(1)
    loader = torch.utils.data.DataLoader(torch.rand(40, 16), batch_size=8, shuffle=True)
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    run = darkit.start_run(name, config={"epochs": 6}, model=model, max_step=6, resume="auto")
    for epoch in range(run.restore(model=model, optimizer=optimizer) + 1, 7):
        if epoch > until:
            run.__exit__(Broke, Broke("broke"), None)  # as an exception that leaves a block
            return
        total = 0.0
        for x in loader:
            output, mean, spread = model(x)
            loss = F.binary_cross_entropy(output, x) + 0.01 * (mean**2 + spread.exp() ** 2 - 2 * spread).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / len(loader)
        with torch.no_grad():
            sample = model.outwards(torch.randn(1, 2)).reshape(4, 4)
        run.log({"train_loss": total, "sample": sample}, step=epoch)
        run.save(model=model, optimizer=optimizer, step=epoch)
    run.finish()


class Words(nn.Module):
    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words, self.width = words, width
        self.table, self.drop, self.head = nn.Embedding(words, width), nn.Dropout(0.2), nn.Linear(width, words)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.drop(self.table(x))).flatten(0, 1), y.flatten())


def train_words(name: str, until: int = 99) -> None:
    """Draw batches at random, one ahead, accumulate, scale, clip, and evaluate and save at the end of some steps."""
    torch.manual_seed(1)
    text = torch.arange(400).mul(7).remainder(11)

    def batch() -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(text) - 9, (4,)).tolist()
        return torch.stack([text[i : i + 8] for i in starts]), torch.stack([text[i + 1 : i + 9] for i in starts])

    model = Words(11, 8)
    groups = [{"params": [model.table.weight], "weight_decay": 0.1}, {"params": list(model.head.parameters())}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    settings = {"max_iters": 20, "lr": 1e-2}
    with darkit.start_run(name, config=settings, model=model, max_step=20, resume="auto") as run:
        count = run.restore(model=model, optimizer=optimizer, scaler=scaler)
        best = run.state.get("best", math.inf)
        x, y = run.state.get("ahead") or batch()
        while count < 20:
            rate = 1e-2 * min(1.0, (count + 1) / 5)
            for group in optimizer.param_groups:
                group["lr"] = rate
            for _ in range(2):
                loss = model(x, y) / 2
                x, y = batch()
                scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            count += 1
            if count > until:
                raise Broke
            run.log({"train_loss": loss.item() * 2, "lr": rate}, step=count)
            if count % 4 == 0:
                model.eval()
                with torch.no_grad():
                    value = sum(model(*batch()).item() for _ in range(3)) / 3
                model.train()
                best = min(best, value)
                run.log({"val_loss": value}, step=count)
                run.save(model=model, optimizer=optimizer, scaler=scaler, best=best, ahead=[x, y])


LOOPS: dict[str, Any] = {"autoencoder": train_autoencoder, "words": train_words}


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_that_broke_ends_as_one_that_did_not(kind: str) -> None:
    train = LOOPS[kind]
    train("straight")
    with suppress(Broke):
        train("run", until=3 if kind == "autoencoder" else 10)
    assert darkit.load("run").status == "crashed"
    train("run")
    straight, run = darkit.load("straight"), darkit.load("run")
    assert (run.status, run.details.step, run.details.max_step) == ("finished", straight.details.step, run.details.step)
    one, other = (read_run_checkpoint(each.path)[1] for each in (straight, run))
    assert [name for name, _ in differences(one, other) if name != "loop.row.time"] == []
    assert run.log().drop("time").equals(straight.log().drop("time"))
    pictures = [[(one.step, one.sha256) for one in read_media(each.path)] for each in (straight, run)]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == (6 if kind == "autoencoder" else 0)


def test_their_models_are_found_by_name() -> None:
    train_autoencoder("run")
    model = Predicter.from_pretrained("run", "cpu").model
    assert isinstance(model, Autoencoder)
    assert model.state_dict().keys() == read_run_checkpoint(darkit.load("run").path)[1]["state_dict"].keys()
