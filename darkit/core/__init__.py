"""The classes that a model is integrated with: `Trainer`, `TrainerConfig`, `Predicter` and `LogFieldnames`.

Subclass `Trainer` for a loop of one's own, or leave ``train`` alone and have the engine's; both leave the same files.
"""

from darkit.core.logger import LogFieldnames
from darkit.core.predicter import Predicter
from darkit.core.trainer import Trainer
from darkit.engine.config import TrainerConfig

__all__ = ["LogFieldnames", "Predicter", "Trainer", "TrainerConfig"]
