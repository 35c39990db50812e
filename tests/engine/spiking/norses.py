"""The network of norse's tutorials, in our own words."""

from __future__ import annotations

import norse.torch as norse
import torch
from torch import Tensor, nn

from tests.engine.spiking.tutorials import CLASSES


class Recurrent(nn.Module):
    """A recurrent layer and a leaky integrator, whose states are arguments."""

    def __init__(self, hidden: int = 10, steps: int = 8) -> None:
        super().__init__()
        self.hidden, self.steps = hidden, steps
        self.lif = norse.LIFRecurrentCell(12, hidden)
        self.fc = nn.Linear(hidden, CLASSES, bias=False)
        self.out = norse.LICell()

    def forward(self, x: Tensor) -> Tensor:
        state = rest = None
        voltages = []
        for _ in range(self.steps):
            spikes, state = self.lif(10 * x, state)
            voltage, rest = self.out(self.fc(spikes), rest)
            voltages.append(voltage)
        return torch.stack(voltages).amax(0)
