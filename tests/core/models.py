"""Models with configs of every kind, at module level so that they can be imported by the path that a run records."""

from __future__ import annotations

import enum
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

if TYPE_CHECKING:
    from decimal import Decimal


class Shape(enum.Enum):
    ROUND = "round"
    SQUARE = "square"


@dataclass
class Part:
    """A config inside a config."""

    size: int = 2
    rates: tuple[float, ...] = (0.1, 0.2)


@dataclass
class WholeConfig:
    """Everything that a dataclass may hold and JSON does not."""

    width: int = 3
    part: Part = field(default_factory=Part)
    perhaps: Part | None = None
    parts: list[Part] = field(default_factory=list)
    named: dict[str, Part] = field(default_factory=dict)
    pair: tuple[int, int] = (1, 2)
    shape: Shape = Shape.ROUND
    folder: Path = Path()
    dtype: torch.dtype = torch.float32
    doubled: int = field(init=False, default=0)
    plain = "as it is"

    def __post_init__(self) -> None:
        self.doubled = 2 * self.width


@dataclass
class UnresolvableConfig:
    """Its annotations name what exists for type checkers only."""

    width: int = 3
    price: Decimal | None = None


@dataclass(frozen=True)
class FrozenConfig:
    width: int = 3


class CheckedConfig(BaseModel):
    width: int = 3
    pair: tuple[int, int] = (1, 2)


class OwnConfig:
    """No dataclass: a class with attributes."""

    depth = 1

    def __init__(self, width: int) -> None:
        self.width = width

    def area(self) -> int:
        return self.width * self.depth


class ToDictConfig:
    """Exports itself, but cannot be made of that again but by its constructor."""

    def __init__(self, width: int = 3) -> None:
        self.width = width

    def to_dict(self) -> dict[str, Any]:
        return {"width": self.width}


class Configured(nn.Module):
    """Takes any config that has a width."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        width = config["width"] if isinstance(config, dict) else config.width
        self.layer = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Positional(nn.Module):
    """Calls its config something else."""

    def __init__(self, settings: FrozenConfig, scale: float = 1.0) -> None:
        super().__init__()
        self.config = settings
        self.layer = nn.Linear(settings.width, 1)


class Plain(nn.Module):
    """No config: its constructor's arguments are attributes."""

    def __init__(self, width: int, hidden: int = 2) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Secretive(nn.Module):
    """Nothing of how it was made can be had."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class NotAModel:
    """Not an nn.Module."""


CONFIGS = [
    WholeConfig(),
    UnresolvableConfig(width=5),
    FrozenConfig(5),
    CheckedConfig(width=5, pair=(3, 4)),
    OwnConfig(5),
    ToDictConfig(5),
    Namespace(width=5),
    SimpleNamespace(width=5),
    {"width": 5, "other": "x"},
]
