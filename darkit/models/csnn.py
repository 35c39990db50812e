"""A spiking convolutional classifier of events: convolutions with a stride, each followed by leaky neurons.

As in the tutorials of ``snntorch`` (Eshraghian et al., 2023), a time step at a time; the prediction is the class with
the largest output, averaged over time. A neuron is set back to zero by its spike, which neuromorphic hardware and the
Neuromorphic Intermediate Representation know.

Shapes: B batch, S time steps, C channels, H height, W width, O classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .checks import check_choice, check_flag, check_layers, check_positive, check_share, check_sizes
from .spiking import SURROGATES, leaky, snntorch


@dataclass
class CSNNConfig:
    """What a `CSNN` is built of.

    Raises:
        ValueError: A size is below 1, or a number or choice is out of range.
    """

    size: int = 12
    """Height and width of a frame."""
    input_channels: int = 2
    """Channels of a frame."""
    output_size: int = 8
    """Classes."""
    channels: Sequence[int] = (16, 32)
    """Channels of each convolution, at least one; each halves height and width."""
    beta: float = 0.7
    """Decay factor of a neuron's potential per step, from 0 to below 1."""
    threshold: float = 0.2
    """The potential at which a neuron fires, above 0."""
    surrogate: str = "fast_sigmoid"
    """Gradient of a spike in the backward pass: ``atan``, ``fast_sigmoid``, ``sigmoid`` or ``straight_through``."""
    learn_beta: bool = False
    """Whether `beta` is learnt, one value per layer."""
    learn_threshold: bool = False
    """Whether `threshold` is learnt, one value per layer."""

    def __post_init__(self) -> None:
        check_sizes(self, "size", "input_channels", "output_size")
        check_layers(self, "channels")
        if not self.channels:
            raise ValueError("channels must have at least one convolution.")
        check_share(self, "beta")
        check_positive(self, "threshold")
        check_choice(self, "surrogate", SURROGATES)
        check_flag(self, "learn_beta")
        check_flag(self, "learn_threshold")


class CSNN(nn.Module):
    """The classifier.

    Raises:
        ImportError: ``snntorch`` is not installed.
    """

    def __init__(self, config: CSNNConfig) -> None:
        super().__init__()
        snntorch()
        self.config = config
        sizes = [config.input_channels, *config.channels]
        self.layers = nn.ModuleList(nn.Conv2d(*pair, 3, stride=2, padding=1) for pair in pairwise(sizes))
        self.neurons = nn.ModuleList(leaky(config) for _ in config.channels)
        left = config.size
        for _ in config.channels:
            left = -(-left // 2)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(sizes[-1] * left * left, config.output_size)

    def forward(self, events: Tensor) -> Tensor:
        """Return logits (B, O) of events (B, S, C, H, W)."""
        potentials = [neurons.reset_mem() for neurons in self.neurons]  # type: ignore[operator]
        outputs = []
        for current in events.unbind(1):
            for place, (layer, neurons) in enumerate(zip(self.layers, self.neurons, strict=True)):
                current, potentials[place] = neurons(layer(current), potentials[place])
            outputs.append(self.head(self.flatten(current)))
        return torch.stack(outputs).mean(0)
