"""Models whose description is tested, and the comparison of a trained model with the one that is built again."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.core import Predicter
from darkit.engine.description.describe import ModelDescription, describe_model
from tests.engine.parts import train

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def described(model: nn.Module, batch: Any = (X[:2],)) -> ModelDescription:
    return describe_model(model, lambda: batch)


def predicted_as_trained(model: nn.Module, data: Any = (X, Y), **settings: Any) -> nn.Module:
    """Train a model, and compare its outputs with those of its run's predicter."""
    settings = {"loss": F.mse_loss, "max_step": 2} | settings
    run = train(model, data, **settings)
    predicter = Predicter.from_pretrained(run.name, "cpu")
    with torch.no_grad():
        expected = model.eval()(X.to(next(model.parameters()).dtype))
    assert torch.equal(predicter.predict(X), expected)
    return predicter.model


class Sloped(nn.Module):
    """Keeps one of its arguments."""

    def __init__(self, width: int = 8, slope: float = 0.01) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(4, width), nn.LeakyReLU(slope), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Enclosed(nn.Module):
    """Hides its argument in a function."""

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.activation = lambda x: F.leaky_relu(x, slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x))


class Listed(nn.Module):
    """Keeps and uses arguments that JSON would change."""

    def __init__(self, sizes: list[int], names: dict[int, str], pair: tuple[int, int] = (1, 2)) -> None:
        super().__init__()
        self.sizes, self.names, self.pair = sizes, names, pair
        assert isinstance(pair, tuple)
        self.layer = nn.Linear(sizes[0], sizes[1] + names[1].count("x"))
        self.out = nn.Linear(self.layer.out_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x)) * self.pair[1]


class Configured(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(4, int(config["width"] if isinstance(config, dict) else config.width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sum(1, keepdim=True)
