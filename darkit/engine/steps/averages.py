"""Exponential moving averages of a model's weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from darkit.errors import ConfigError

_FULL = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class Averages:
    """Averages of all parameters of one module: ``average += (1 - decay) * (weight - average)`` after every step.

    The first update copies the weights, as `torch.optim.swa_utils.AveragedModel` does. Half-precision weights are
    averaged in float32, which keeps small changes. Buffers are not averaged.

    Args:
        decay: Share of the average that each step keeps, above 0 and below 1.

    Raises:
        ConfigError: The decay is out of its range.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"decay must be above 0 and below 1, not {decay!r}.")
        self.decay = decay
        self._parameters: list[nn.Parameter] = []
        self._averages: list[Tensor] = []

    def attach(self, module: nn.Module) -> None:
        """Use a module's parameters, which may have moved to another device since the averages were made."""
        self._parameters = list(module.parameters())
        pairs = zip(self._averages, self._parameters, strict=False)
        self._averages = [average.to(parameter.device) for average, parameter in pairs]

    def start(self, module: nn.Module, state: Mapping[str, Any]) -> None:
        """Load the averages of a checkpoint; the module has its raw weights afterwards."""
        module.load_state_dict(state["state_dict"])
        self._averages = [_copy(parameter) for parameter in module.parameters()]
        module.load_state_dict(state["raw_state_dict"])

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the averages."""
        if not self._averages:
            self._averages = [_copy(parameter) for parameter in self._parameters]
            return
        pairs = list(zip(self._averages, self._parameters, strict=True))
        whole = [pair for pair in pairs if pair[0].dtype in _FULL]
        if whole:
            averages = [average for average, _ in whole]
            torch._foreach_lerp_(averages, [weight.detach().to(mean.dtype) for mean, weight in whole], 1 - self.decay)
        for average, weight in pairs:
            if average.dtype not in _FULL:  # integers cannot be averaged
                average.copy_(weight)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Replace the module's weights by the averages."""
        for average, parameter in zip(self._averages, self._parameters, strict=False):
            parameter.copy_(average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the module's weights by the averages for a block."""
        raw = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self.copy_to_module()
            yield
        finally:
            with torch.no_grad():
                for weight, parameter in zip(raw, self._parameters, strict=True):
                    parameter.copy_(weight)

    def state_of(self, module: nn.Module) -> Any:
        """Return the module's ``state_dict`` with the averages, as copies; tied tensors stay one tensor."""
        with self.applied():
            state = module.state_dict()
            copies: dict[Any, Tensor] = {}
            copied: Any = OrderedDict()
            for key, value in state.items():
                if isinstance(value, Tensor):
                    place = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else key
                    value = copies.setdefault(place, value.detach().clone())
                copied[key] = value
        copied.__dict__.update(vars(state))
        return copied

    def state_dict(self) -> dict[str, Any]:
        """Return the averages of higher precision than the weights, by index; the others are in the checkpoint."""
        pairs = zip(self._averages, self._parameters, strict=False)
        return {"finer": {str(i): mean for i, (mean, weight) in enumerate(pairs) if mean.dtype != weight.dtype}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the averages from `state_dict`, after `start` has loaded the others."""
        for place, average in state["finer"].items():
            if int(place) < len(self._averages):
                self._averages[int(place)] = average.clone()


def averages_of(trainer: Trainer) -> Averages | None:
    """Return the averages of the trainer's callback, or None."""
    found = (getattr(callback, "averages", None) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return next((averages for averages in found if isinstance(averages, Averages)), None)


def evaluated_weights(trainer: Trainer) -> AbstractContextManager[None]:
    """Return a block in which the module has the weights to evaluate: the averages, if a callback keeps them."""
    averages = averages_of(trainer)
    return nullcontext() if averages is None else averages.applied()


def raw_weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a checkpoint's content with the training weights instead of the averages as its ``state_dict``."""
    return {**content, "state_dict": content["raw_state_dict"]} if "raw_state_dict" in content else content


def _copy(parameter: Tensor) -> Tensor:
    half = parameter.dtype.is_floating_point and parameter.dtype not in _FULL
    return parameter.detach().clone().to(torch.float32 if half else parameter.dtype)
