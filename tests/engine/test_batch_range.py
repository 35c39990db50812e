"""The batch-size finder."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from darkit import TrainerConfig
from darkit.engine.batch_range import measure_sizes
from darkit.errors import BatchError, ConfigError
from tests.engine.parts import MLP

DATA = TensorDataset(torch.randn(20, 4), torch.randn(20, 1))


class Limited(MLP):
    """Fits in memory up to a batch of so many samples."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.calls = most, []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        if len(x) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        found: Tensor = super().forward(x)
        return found


def sizes(model: nn.Module, most: int = 64) -> list[tuple[int, bool]]:
    config = TrainerConfig(device="cpu")
    return [(one.size, one.seconds is not None) for one in measure_sizes(model, F.mse_loss, DATA, config, most, 2)]


def test_sizes_double_up_to_the_number_of_samples_the_largest_or_what_fits() -> None:
    assert sizes(MLP())[:3] == [(1, True), (2, True), (4, True)]
    assert all(size <= 16 for size, _ in sizes(MLP()))
    assert max(size for size, _ in sizes(MLP(), 2)) == 2
    model = Limited(2)
    assert sizes(model) == [(1, True), (2, True), (4, False)]
    assert model.calls == [1, 1, 1, 2, 2, 2, 4]
    assert sizes(Limited(0)) == [(1, False)]


def test_the_short_last_batch_of_an_epoch_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.engine.batch_range._STALE", 9)
    model = Limited(64)
    assert [size for size, _ in sizes(model)] == [1, 2, 4, 8, 16]
    assert model.calls == [size for size in (1, 2, 4, 8, 16) for _ in range(3)]  # 20 samples


def test_other_errors_come_through_and_a_loader_is_refused() -> None:
    class Broken(MLP):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("theirs")

    with pytest.raises(Exception, match="theirs"):
        sizes(Broken())
    with pytest.raises(ConfigError, match="decides its batch size itself"):
        next(measure_sizes(MLP(), F.mse_loss, DataLoader(DATA), TrainerConfig(device="cpu"), 8, 1))


def test_a_normalisation_over_the_batch_begins_with_two_samples() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    assert sizes(model, 4) == [(2, True), (4, True)]
    with pytest.raises(BatchError, match="more than 1 value per channel"):
        sizes(model, 1)


def test_a_compiled_training_is_measured_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda call, **settings: compiled.append(settings) or call)
    config = TrainerConfig(device="cpu", compile=True)
    list(measure_sizes(MLP(), F.mse_loss, DATA, config, 2, 1))
    assert compiled == [{"dynamic": False}]


def test_a_module_with_its_own_optimizer_is_refused() -> None:
    class Own(lightning.LightningModule):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.raises(ConfigError, match="Own is trained by Lightning's own loop"):
        next(measure_sizes(Own(), None, DATA, TrainerConfig(device="cpu"), 8, 1))
