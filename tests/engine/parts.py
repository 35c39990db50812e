"""Small models and data that several tests of the engine train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import darkit
from darkit.runs import base


class MLP(nn.Module):
    """Regression from (batch, width) to (batch, 1); its arguments can be recorded."""

    def __init__(self, width: int = 4, hidden: int = 8) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LossMLP(MLP):
    """Returns a loss, and another number, for a batch of inputs and targets."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        error = self.layers(x) - y
        return {"loss": error.square().mean(), "absolute": error.abs().mean()}


class CountingMLP(MLP):
    """Returns the number of its training calls, from a buffer that it changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        if self.training:
            self.calls += 1
        x, y = batch
        return {"loss": F.mse_loss(self.layers(x), y), "calls": self.calls}


class Explode(MLP):
    """Its loss is NaN from one call of `training_step` on."""

    def __init__(self, at: int = 3) -> None:
        super().__init__()
        self.at = at
        self.calls = 0

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.calls += 1
        x, y = batch
        loss = F.mse_loss(self.layers(x), y)
        return loss * float("nan") if self.calls >= self.at else loss


class Numbers(Dataset[tuple[Tensor, Tensor]]):
    """Samples that tell which of them were asked for, in `asked`."""

    def __init__(self, length: int = 16, width: int = 4) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(length, width, generator=generator)
        self.y = self.x.sum(1, keepdim=True)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.asked.append(index)
        return self.x[index], self.y[index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples in order, without a length."""

    def __init__(self, length: int = 16) -> None:
        self.samples = Numbers(length)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(x, y) for x, y in zip(self.samples.x, self.samples.y, strict=True)])


class DataModule(lightning.LightningDataModule):
    """Sixteen samples in batches of four."""

    def __init__(self, length: int = 16, validation: bool = True) -> None:
        super().__init__()
        self.length, self.validation = length, validation
        self.prepared = False

    def prepare_data(self) -> None:
        self.prepared = True

    def setup(self, stage: str) -> None:
        assert self.prepared
        assert stage == "fit"
        self.samples = Numbers(self.length)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=4)

    def val_dataloader(self) -> Any:
        return DataLoader(self.samples, batch_size=4) if self.validation else []


def xy(length: int = 16) -> tuple[Tensor, Tensor]:
    """The tensors of `Numbers`."""
    samples = Numbers(length)
    return samples.x, samples.y


def in_order(length: int = 16, batch_size: int = 4) -> DataLoader[Any]:
    """A loader of one's own that does not shuffle."""
    return DataLoader(TensorDataset(*xy(length)), batch_size=batch_size)


def made(cls: Callable[..., nn.Module] = MLP, seed: int = 0, **arguments: Any) -> Any:
    """A model with known weights."""
    torch.manual_seed(seed)
    return cls(**arguments)


def train(model: nn.Module, data: Any, val_data: Any = None, **options: Any) -> darkit.Run:
    """`darkit.fit` with little and on the CPU, or with the config that is given."""
    settings: dict[str, Any] = {}
    if "config" not in options:
        settings = {"device": "cpu", "tensorboard": False, "batch_size": 4, "max_step": 6, "eval_step_interval": 0}
    if type(model) is MLP:
        settings["loss"] = F.mse_loss
    return darkit.fit(model, data, val_data, **{**settings, **options})


def run_names() -> list[str]:
    """Everything that is in the folder of all runs, hidden files too."""
    return sorted(path.name for path in base().iterdir()) if base().is_dir() else []


def hand_loop(
    model: nn.Module,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Any], Tensor] = lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
    schedule: Any = None,
) -> list[float]:
    """The plainest loop there is; returns the losses."""
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(value.item())
    return losses


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether all weights and buffers are the same bits."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def weights_at(run: darkit.Run, step: int) -> dict[str, Tensor]:
    """The weights in the checkpoint of a step."""
    path = Path(run.path) / f"iter-{step}-ckpt.pth"
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state
