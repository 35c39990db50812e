"""Sampling of the next token, and its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darkit.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Sampling:
    """The settings of text generation.

    Raises:
        ConfigError: A setting is out of range.
    """

    max_new_tokens: int = 200
    """Maximum number of new tokens, at least 1."""
    temperature: float = 1.0
    """Divisor of the logits; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Sample from this many of the likeliest tokens; None takes all."""
    top_p: float | None = None
    """Sample from the fewest likeliest tokens with this total probability, above 0 and at most 1 (nucleus sampling,
    Holtzman et al., 2020)."""
    stop: Sequence[str] = ()
    """Texts that end the continuation and are not part of it."""
    seed: int | None = None
    """Seed of the sampling; None draws another text each time."""

    def __post_init__(self) -> None:
        check_count("max_new_tokens", self.max_new_tokens)
        if self.top_k is not None:
            check_count("top_k", self.top_k)
        if not _is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be finite and at least 0, not {self.temperature!r}.")
        if self.top_p is not None and (not _is_number(self.top_p) or not 0 < self.top_p <= 1):
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.top_p!r}.")
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise ConfigError(f"A stop must be a text of at least one character, not {text!r}.")
        if self.seed is not None and (not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**64):
            raise ConfigError(f"seed must be a whole number of at most 64 bits, not {self.seed!r}.")


def check_count(name: str, count: object) -> None:
    """Check a whole number of at least 1. Raises `ConfigError`."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"{name} must be at least 1, not {count!r}.")


class Choice:
    """Sampler of tokens.

    Random numbers are drawn on the CPU, one per token, so that a seed gives the same text on every device.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._generator = torch.Generator()
        self._generator.manual_seed(sampling.seed) if sampling.seed is not None else self._generator.seed()

    def __call__(self, logits: Tensor) -> int:
        """Return a token, given the logits (vocabulary). Raises `ModelError` if they are not finite."""
        largest = float(logits.max())
        if not math.isfinite(largest):
            raise ModelError("The model's logits are not finite, so no token can be sampled.")
        if not self.sampling.temperature:
            return int(logits.argmax())
        values = logits.detach().cpu().double()
        values = (values - largest) / self.sampling.temperature  # at most 0, so no exponential overflows
        tokens = None
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if top_k is not None and top_k < len(values):
            values, tokens = values.topk(top_k)
        elif top_p is not None and top_p < 1:
            values, tokens = values.sort(descending=True, stable=True)
        weights = values.exp()
        if top_p is not None and top_p < 1:
            before = weights.cumsum(0) - weights
            weights = weights.where(before < top_p * weights.sum(), 0.0)
        place = self._draw(weights)
        return place if tokens is None else int(tokens[place])

    def _draw(self, weights: Tensor) -> int:
        """Draw an index with probability proportional to its weight."""
        sums = weights.cumsum(0)
        above_zero = 1 - torch.rand((), dtype=torch.float64, generator=self._generator)
        return int(torch.searchsorted(sums, sums[-1] * above_zero))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
