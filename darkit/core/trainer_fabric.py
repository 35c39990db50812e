"""The module in which DarwinKit has its `FabricTrainer`."""

from __future__ import annotations

from darkit.core.fabric import FabricTrainer

__all__ = ["FabricTrainer"]
