"""Next-token logits of a language model, with its cache if it has one.

A model has a cache if it has ``make_cache(batch_size)`` and its ``forward(tokens, cache=cache)`` returns the logits of
these tokens and extends the cache; ``cache.limit`` is its maximum number of tokens, or None for a recurrent state. The
models of transformers create theirs with ``use_cache`` and return it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.data.fits import CONTEXT_NAMES
from darkit.engine.data.samples import describe
from darkit.engine.steps.loss import batch_errors, call_model
from darkit.errors import ConfigError, ModelError

_LOGITS = ("logits", "prediction_logits")  # the second in transformers' models with next-sentence prediction
_CACHES = ("cache", "past_key_values")  # names in transformers' models, the newer first


class Reader:
    """Reader of growing texts, without a cache.

    Args:
        model: The language model.
        limit: Maximum tokens that it sees, or None.

    Attributes:
        several: Whether it reads several texts at once, each as it would alone.
    """

    several = False

    def __init__(self, model: nn.Module, limit: int | None) -> None:
        self.model = model
        self.limit = limit
        self.device = device_of(model)

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """Return the logits (vocabulary) of the next token; the ids start with those of the last call."""
        return self.read([ids])[0]

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits (rows, vocabulary) of the next tokens of texts of the same length, as for one."""
        return self._last(self._windows(rows))

    def _windows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return self._tensor([row[-self.limit :] for row in rows] if self.limit else rows)

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, device=self.device)

    def _last(self, tokens: Tensor, **settings: Any) -> Tensor:
        return self._logits(self._call(tokens, **settings), tokens)

    def _call(self, *tokens: Tensor, **settings: Any) -> Any:
        with batch_errors(tokens[0] if tokens else settings), torch.inference_mode():
            return self.model(*tokens, **settings)

    def _logits(self, output: Any, tokens: Tensor) -> Tensor:
        logits = logits_of(output)
        if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            raise ModelError(
                f"A language model returns logits (batch, time, vocabulary), but {type(self.model).__name__} returned "
                f"{describe(logits)} for {describe(tokens)}: it cannot generate text."
            )
        return logits[:, -1]


class CachedReader(Reader):
    """Reader with the model's cache, as long as the texts fit into it."""

    several = True

    def __init__(self, model: nn.Module, limit: int | None) -> None:
        super().__init__(model, limit)
        self._cache: Any = None
        self._seen = 0

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        if self.limit and len(rows[0]) > self.limit:
            self._cache = None  # the first tokens leave the window, which changes the state of all others
            return super().read(rows)
        if not self._seen:
            self._cache = self.model.make_cache(batch_size=len(rows))  # type: ignore[operator]
        tokens = self._tensor([row[self._seen :] for row in rows])
        self._seen = len(rows[0])
        return self._last(tokens, cache=self._cache)


class TransformersReader(Reader):
    """Reader with the cache that a transformers model creates, takes as the argument ``name`` and returns."""

    def __init__(self, model: nn.Module, limit: int | None, name: str, use_cache: bool) -> None:
        super().__init__(model, limit)
        self.several = use_cache
        self._name = name
        self._use_cache = use_cache
        self._past: Any = None
        self._seen = 0

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        if not self._use_cache or (self.limit and len(rows[0]) > self.limit):
            self._past = None
            return self._last(self._windows(rows), use_cache=False)
        tokens = self._tensor([row[self._seen :] for row in rows])
        output = self._call(tokens, **{self._name: self._past}, use_cache=True)
        self._past = getattr(output, self._name, None)
        self._seen = len(rows[0]) if self._past is not None else 0
        return self._logits(output, tokens)


def make_reader(model: nn.Module, context_length: int | None = None, *, use_cache: bool = True) -> Reader:
    """Return the reader for a model.

    Args:
        model: Returns logits (batch, time, vocabulary), or an output with ``logits`` or with them first.
        context_length: Maximum tokens that the model sees; None takes the limit of its cache or config.
        use_cache: Use the model's cache if it has one.

    Raises:
        ConfigError: ``context_length`` is above the model's limit.
    """
    if callable(getattr(model, "make_cache", None)):
        cache = model.make_cache(batch_size=1)  # type: ignore[operator]
        own = getattr(cache, "limit", context_of(model))
        _check_limit(context_length, own)
        limit = context_length or own
        return CachedReader(model, limit) if use_cache else Reader(model, limit)
    own = context_of(model)
    names = parameter_names(model)
    name = next((name for name in _CACHES if name in names), None)
    if name is not None and "use_cache" in names:
        _check_limit(context_length, own)
        return TransformersReader(model, context_length or own, name, use_cache)
    return Reader(model, context_length or own)


def _check_limit(wanted: int | None, own: int | None) -> None:
    if wanted is not None and own is not None and wanted > own:
        raise ConfigError(f"context_length must be at most {own}, the limit of the model, not {wanted}.")


def parameter_names(model: nn.Module) -> set[str]:
    """Return the argument names of a model's ``forward``."""
    try:
        return set(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):  # made in C
        return set()


def context_of(model: nn.Module) -> int | None:
    """Return the maximum tokens in a model's config, or None."""
    config = getattr(model, "config", None)
    for name in CONTEXT_NAMES:
        value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def logits_of(output: Any) -> Any:
    """Return the logits in a model's output: ``logits``, the first item, or the output itself."""
    for name in _LOGITS:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if found is not None:
            return found
    return output[0] if isinstance(output, tuple | list) and output else output


def call_by_names(model: nn.Module, rows: Sequence[Sequence[int]], pad: int = 0) -> Any:
    """Call a model with padded ids, and an attention mask if it takes one."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device_of(model))
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=ids.device)
    names = parameter_names(model)
    with torch.inference_mode():
        if "input_ids" in names:
            batch = {"input_ids": ids} | ({"attention_mask": mask} if "attention_mask" in names else {})
            return call_model(model, batch)
        return model(ids)
