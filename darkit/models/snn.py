"""A spiking classifier: layers of leaky neurons that see a sample for several time steps.

As in the tutorials of ``snntorch`` (Eshraghian et al., 2023): the features are a constant input current, and the
prediction is the class with the largest output, averaged over time.

Shapes: B batch, S time steps, F features, O classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from .checks import check_choice, check_flag, check_layers, check_positive, check_share, check_sizes
from .spiking import SURROGATES, leaky_over_time, snntorch


@dataclass
class SNNConfig:
    """What an `SNN` is built of.

    Raises:
        ValueError: A size is below 1, or a number or choice is out of range.
    """

    input_size: int = 64
    """Features of a sample."""
    output_size: int = 10
    """Classes."""
    hidden_sizes: Sequence[int] = (128,)
    """Sizes of the layers of neurons, at least one."""
    time_steps: int = 8
    """Time steps per sample."""
    beta: float = 0.9
    """Decay factor of a neuron's potential per step, from 0 to below 1."""
    threshold: float = 1.0
    """The potential at which a neuron fires, above 0."""
    surrogate: str = "atan"
    """Gradient of a spike in the backward pass: ``atan``, ``fast_sigmoid``, ``sigmoid`` or ``straight_through``."""
    learn_beta: bool = False
    """Whether `beta` is learnt, one value per layer."""
    learn_threshold: bool = False
    """Whether `threshold` is learnt, one value per layer."""

    def __post_init__(self) -> None:
        check_sizes(self, "input_size", "output_size", "time_steps")
        check_layers(self, "hidden_sizes")
        if not self.hidden_sizes:
            raise ValueError("hidden_sizes must have at least one layer of neurons.")
        check_share(self, "beta")
        check_positive(self, "threshold")
        check_choice(self, "surrogate", SURROGATES)
        check_flag(self, "learn_beta")
        check_flag(self, "learn_threshold")


class SNN(nn.Module):
    """The classifier.

    Raises:
        ImportError: ``snntorch`` is not installed.
    """

    def __init__(self, config: SNNConfig) -> None:
        super().__init__()
        snntorch()
        self.config = config
        sizes = [config.input_size, *config.hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.neurons = nn.ModuleList(leaky_over_time(config) for _ in config.hidden_sizes)
        self.head = nn.Linear(sizes[-1], config.output_size)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, O) of features (B, F), or of samples of any shape with F numbers each."""
        flat = features.flatten(1)
        current = flat[:, None].expand(-1, self.config.time_steps, -1)  # (B, S, F)
        for layer, neurons in zip(self.layers, self.neurons, strict=True):
            current, _ = neurons(layer(current))
        logits: Tensor = self.head(current).mean(1)
        return logits
