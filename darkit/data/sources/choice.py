"""What a ``data=`` choice gives to a training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_TARGET_NAMES = ("target", "targets", "label", "labels", "y")


@dataclass(frozen=True)
class DataChoice:
    """Data and what belongs to it.

    Attributes:
        train: What `darkit.fit` takes as ``data``.
        val: What it takes as ``val_data``, or None.
        tokenizer: The tokenizer of text, or None.
        loss: The loss for models that bring none, a callable of outputs and target, or None.
        baselines: Losses to compare the validation loss with: what it is -> nats, or the loss's own unit.
        settings: What became of the settings of a ``data=`` config, such as ``vocab_size``: models that take them from
            there get these values.
    """

    train: Any
    val: Any = None
    tokenizer: Any = None
    loss: Callable[..., Any] | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def loss_for(self, model: nn.Module) -> Callable[..., Any] | None:
        """Return the loss, or None for a model whose ``forward`` asks for the target: it makes its own of it."""
        parameters = list(inspect.signature(model.forward).parameters.values())
        return None if any(parameter.name in _TARGET_NAMES for parameter in parameters[1:]) else self.loss
