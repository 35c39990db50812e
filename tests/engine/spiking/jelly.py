"""The networks of spikingjelly's tutorials, in our own words."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from tests.engine.spiking.tutorials import CLASSES


class Lif(nn.Module):
    """One fully connected layer of LIF neurons; their rate over time is the answer."""

    def __init__(self, tau: float = 2.0, steps: int = 4) -> None:
        super().__init__()
        self.tau, self.steps = tau, steps
        self.layer = nn.Sequential(layer.Flatten(), layer.Linear(12, CLASSES, bias=False), neuron.LIFNode(tau))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layer(x) for _ in range(self.steps)]).mean(0)


class Csnn(nn.Module):
    """Convolutions, all time steps in one call."""

    def __init__(self, steps: int = 4, channels: int = 4) -> None:
        super().__init__()
        self.steps, self.channels = steps, channels
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, channels, 3, padding=1, bias=False),
            layer.BatchNorm2d(channels),
            neuron.IFNode(),
            layer.MaxPool2d(2, 2),
            layer.Conv2d(channels, channels, 3, padding=1, groups=2, bias=False),
            neuron.IFNode(),
            layer.Flatten(),
            layer.Linear(channels * 16, CLASSES, bias=False),
            neuron.IFNode(),
        )
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_fc(x[None].expand(self.steps, *x.shape)).mean(0)
