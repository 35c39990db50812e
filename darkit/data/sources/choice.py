"""`DataChoice`: the result of a ``data=`` choice."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_TARGET_NAMES = ("target", "targets", "label", "labels", "y")


@dataclass(frozen=True)
class DataChoice:
    """Data with its tokenizer, loss and baselines.

    Attributes:
        train: The ``data`` of `darkit.fit`.
        val: Its ``val_data``, or None.
        tokenizer: The tokenizer of text, or None.
        loss: The loss for models without one, a callable of outputs and target, or None.
        baselines: Losses to compare the validation loss with: name -> nats, or the unit of the loss.
        settings: Actual values of the settings of a ``data=`` config, such as ``vocab_size``, for the model's config.
    """

    train: Any
    val: Any = None
    tokenizer: Any = None
    loss: Callable[..., Any] | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def loss_for(self, model: nn.Module) -> Callable[..., Any] | None:
        """Return the loss, or None for a model whose ``forward`` takes the target and computes its own loss."""
        parameters = list(inspect.signature(model.forward).parameters.values())
        return None if any(parameter.name in _TARGET_NAMES for parameter in parameters[1:]) else self.loss
