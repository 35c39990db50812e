"""The module in which DarwinKit has its `Predicter`."""

from __future__ import annotations

from darkit.prediction.predicter import Predicter

__all__ = ["Predicter"]
