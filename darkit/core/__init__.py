"""The classes to integrate a model with: `Trainer`, `FabricTrainer`, `TrainerConfig`, `Predicter`, `LogFieldnames`.

A `Trainer` subclass either writes its own ``train`` or is trained by the engine; both write the same files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkit.core.fabric import FabricTrainer
    from darkit.core.logger import LogFieldnames
    from darkit.core.trainer import Trainer
    from darkit.engine.config import TrainerConfig
    from darkit.prediction.predicter import Predicter

__all__ = ["FabricTrainer", "LogFieldnames", "Predicter", "Trainer", "TrainerConfig"]

_LAZY = {  # a prediction does not import what only training needs
    "FabricTrainer": "darkit.core.fabric",
    "LogFieldnames": "darkit.core.logger",
    "Predicter": "darkit.prediction.predicter",
    "Trainer": "darkit.core.trainer",
    "TrainerConfig": "darkit.engine.config",
}


def __getattr__(name: str) -> Any:
    if name == "utils":
        return import_module("darkit.core.utils")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'darkit.core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
