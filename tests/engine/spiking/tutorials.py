"""The networks of the spiking libraries' tutorials, in our own words, on local data of a few samples."""

from __future__ import annotations

import pytest
import snntorch
import torch
from snntorch import functional as snn_functional
from snntorch import surrogate
from torch import Tensor, nn

CLASSES = 3


def currents(samples: int = 24, size: int = 12) -> tuple[Tensor, Tensor]:
    """Features from 0 to 1 of three classes."""
    generator = torch.Generator().manual_seed(3)
    y = torch.randint(CLASSES, (samples,), generator=generator)
    x = torch.rand(samples, size, generator=generator) * 0.5
    x[torch.arange(samples), y] += 2
    return x, y


def pictures(samples: int = 24) -> tuple[Tensor, Tensor]:
    """Pictures (1, 8, 8) of three classes."""
    x, y = currents(samples, 64)
    return x.unflatten(1, (1, 8, 8)), y


def movies(samples: int = 24, time: int = 6) -> tuple[Tensor, Tensor]:
    """Events (time, 2, 8, 8) of three classes, each 0 or 1."""
    generator = torch.Generator().manual_seed(4)
    y = torch.randint(CLASSES, (samples,), generator=generator)
    x = (torch.rand(samples, time, 2, 8, 8, generator=generator) < 0.1 + 0.2 * y[:, None, None, None, None]).float()
    return x, y


class FeedForward(nn.Module):
    """snntorch's tutorial 5: the forward pass makes and passes on the state."""

    def __init__(self, hidden: int = 10, beta: float = 0.95, steps: int = 5) -> None:
        super().__init__()
        self.hidden, self.beta, self.steps = hidden, beta, steps
        self.fc1 = nn.Linear(12, hidden)
        self.lif1 = snntorch.Leaky(beta=beta)
        self.fc2 = nn.Linear(hidden, CLASSES)
        self.lif2 = snntorch.Leaky(beta=beta)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        recorded = []
        for _ in range(self.steps):
            spikes, mem1 = self.lif1(self.fc1(x), mem1)
            _, mem2 = self.lif2(self.fc2(spikes), mem2)
            recorded.append(mem2)
        return torch.stack(recorded).mean(0)


class Convolutional(nn.Module):
    """snntorch's tutorial 6 and 7: a sequence with hidden state, over time steps of one picture or of a movie."""

    def __init__(self, channels: int = 1, beta: float = 0.5, steps: int = 4) -> None:
        super().__init__()
        self.channels, self.beta, self.steps = channels, beta, steps
        gradient = surrogate.fast_sigmoid(slope=25)
        self.net = nn.Sequential(
            nn.Conv2d(channels, 4, 3),
            nn.MaxPool2d(2),
            snntorch.Leaky(beta=beta, spike_grad=gradient, init_hidden=True),
            nn.Flatten(),
            nn.Linear(4 * 3 * 3, CLASSES),
            snntorch.Leaky(beta=beta, spike_grad=gradient, init_hidden=True, output=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unbind(1) if x.ndim == 5 else [x] * self.steps
        return torch.stack([self.net(frame)[0] for frame in frames])


rate_loss = snn_functional.ce_rate_loss()


def lif_of_spikingjelly() -> nn.Module:
    """spikingjelly's first tutorial."""
    pytest.importorskip("spikingjelly.activation_based")
    from tests.engine.spiking.jelly import Lif

    return Lif()


def csnn_of_spikingjelly() -> nn.Module:
    """spikingjelly's convolutional network."""
    pytest.importorskip("spikingjelly.activation_based")
    from tests.engine.spiking.jelly import Csnn

    return Csnn()


def lif_of_norse() -> nn.Module:
    """norse's recurrent network."""
    pytest.importorskip("norse.torch")
    from tests.engine.spiking.norses import Recurrent

    return Recurrent()
