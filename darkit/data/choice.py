"""What a ``data=`` choice gives to a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DataChoice:
    """Data and what belongs to it.

    Attributes:
        train: What `darkit.fit` takes as ``data``.
        val: What it takes as ``val_data``, or None.
        tokenizer: The tokenizer of text, or None.
        loss: The loss for models that bring none, or None.
        baselines: Losses to compare the validation loss with: what it is -> nats, or the loss's own unit.
    """

    train: Any
    val: Any = None
    tokenizer: Any = None
    loss: Callable[..., Any] | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
