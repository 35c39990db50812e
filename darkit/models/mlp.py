"""A multilayer perceptron: layers of neurons, each followed by a non-linearity, and a linear output.

Shapes: B batch, F features, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from .checks import check_choice, check_layers, check_share, check_sizes

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


@dataclass
class MLPConfig:
    """What an `MLP` is built of.

    Raises:
        ValueError: A size is below 1, or a choice is unknown.
    """

    input_size: int = 64
    """Features of a sample."""
    output_size: int = 10
    """Outputs: classes, or numbers to predict."""
    hidden_sizes: Sequence[int] = (128, 128)
    """Sizes of the hidden layers; an empty list makes the model linear."""
    activation: str = "relu"
    """``relu``, ``gelu`` or ``tanh``."""
    dropout: float = 0.0
    """Probability of dropping an activation while training, from 0 to below 1."""

    def __post_init__(self) -> None:
        check_sizes(self, "input_size", "output_size")
        check_layers(self, "hidden_sizes")
        check_choice(self, "activation", tuple(_ACTIVATIONS))
        check_share(self, "dropout")


class MLP(nn.Module):
    """The perceptron."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [config.input_size, *config.hidden_sizes]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), _ACTIVATIONS[config.activation](), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], config.output_size))

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs (B, O) of features (B, F), or of samples of any shape with F numbers each."""
        outputs: Tensor = self.layers(features.flatten(1))
        return outputs
