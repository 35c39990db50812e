"""A spiking recurrent classifier of sequences: leaky neurons that get their own spikes of the step before.

As in the tutorials of ``snntorch`` (Eshraghian et al., 2023); the prediction is the class with the largest output,
averaged over time.

Shapes: B batch, S time steps, F features, H neurons, O classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import check_choice, check_flag, check_positive, check_share, check_sizes
from .spiking import SURROGATES, leaky, snntorch


@dataclass
class SRNNConfig:
    """What an `SRNN` is built of.

    Raises:
        ValueError: A size is below 1, or a number or choice is out of range.
    """

    input_size: int = 288
    """Numbers of a time step."""
    output_size: int = 8
    """Classes."""
    hidden_size: int = 64
    """Recurrent neurons."""
    beta: float = 0.7
    """Decay factor of a neuron's potential per step, from 0 to below 1."""
    threshold: float = 0.5
    """The potential at which a neuron fires, above 0."""
    surrogate: str = "atan"
    """Gradient of a spike in the backward pass: ``atan``, ``fast_sigmoid``, ``sigmoid`` or ``straight_through``."""
    learn_beta: bool = False
    """Whether `beta` is learnt."""
    learn_threshold: bool = False
    """Whether `threshold` is learnt."""

    def __post_init__(self) -> None:
        check_sizes(self, "input_size", "output_size", "hidden_size")
        check_share(self, "beta")
        check_positive(self, "threshold")
        check_choice(self, "surrogate", SURROGATES)
        check_flag(self, "learn_beta")
        check_flag(self, "learn_threshold")


class SRNN(nn.Module):
    """The classifier.

    Raises:
        ImportError: ``snntorch`` is not installed.
    """

    def __init__(self, config: SRNNConfig) -> None:
        super().__init__()
        snntorch()
        self.config = config
        self.input = nn.Linear(config.input_size, config.hidden_size)
        self.neurons = leaky(config, linear_features=config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.output_size)

    def forward(self, sequences: Tensor) -> Tensor:
        """Return logits (B, O) of sequences (B, S, F), or of time steps of any shape with F numbers each."""
        spikes, potential = self.neurons.reset_mem()
        outputs = []
        for current in sequences.flatten(2).unbind(1):
            spikes, potential = self.neurons(self.input(current), spikes, potential)
            outputs.append(self.head(spikes))
        return torch.stack(outputs).mean(0)
