"""Training: `fit`, the adapter around the user's module, the callbacks, checkpoints and the log's way out."""

from darkit.engine.config import TrainerConfig
from darkit.engine.training import fit

__all__ = ["TrainerConfig", "fit"]
