"""What the checks of a device train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLES = 256


class Wide(nn.Module):
    """Regression with dropout, so that a resume also needs the device's generator."""

    def __init__(self, size: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.dropout(torch.tanh(layer(x)))
        return F.mse_loss(x, y)


def data(size: int = 64, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """Make inputs and targets, each (samples, size)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, size, generator=generator), torch.randn(samples, size, generator=generator)
