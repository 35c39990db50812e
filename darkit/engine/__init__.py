"""Training: `fit`, the adapter around the user's module, callbacks, checkpoints and logging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from darkit.engine.config import TrainerConfig

if TYPE_CHECKING:
    from darkit.engine.training import fit

__all__ = ["TrainerConfig", "fit"]


def __getattr__(name: str) -> Any:
    """Import `fit` on first use: a config alone needs no torch."""
    if name == "fit":
        from darkit.engine.training import fit

        return fit
    raise AttributeError(f"module 'darkit.engine' has no attribute {name!r}")
