"""Text from a language model, piece by piece."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.fits import CONTEXT_NAMES
from darkit.errors import ConfigError

logger = logging.getLogger(__name__)
_END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "[SEP]", "<eos>")
_UNFINISHED = "\ufffd"  # what a decoder makes of a character whose bytes are not all there yet


def stream_text(
    model: nn.Module,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    context_length: int | None = None,
) -> Iterator[str]:
    """Continues a prompt.

    Args:
        model: Returns logits (batch, time, vocabulary), or something that carries them as ``logits`` or comes first.
        tokenizer: A `tokenizers.Tokenizer` or a transformers tokenizer.
        prompt: The text to continue.
        max_new_tokens: How many tokens at most, at least 1.
        temperature: What logits are divided by; 0 takes the likeliest token always.
        top_k: From how many of the likeliest tokens to choose; None takes all.
        seed: Seed of the choice; None makes another text each time.
        context_length: How many tokens the model sees at most; None looks for it in the model's config.

    Yields:
        Pieces of text in whole characters; together they are the continuation.

    Raises:
        ConfigError: A setting is out of its range, or the prompt has no token.
    """
    counts = {"max_new_tokens": max_new_tokens, "top_k": top_k, "context_length": context_length}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"{name} must be at least 1, not {count!r}.")
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature must be finite and at least 0, not {temperature!r}.")
    ids = _encode(tokenizer, prompt)
    if not ids:
        raise ConfigError(f"The prompt {prompt!r} has no token to go on from.")
    limit = context_length or _context_length(model)
    if limit and len(ids) > limit:
        logger.warning("The prompt has %d tokens; the model sees the last %d.", len(ids), limit)
    device = next(model.parameters()).device
    generator = torch.Generator(device=device)
    generator.manual_seed(seed) if seed is not None else generator.seed()
    return _pieces(model, tokenizer, ids, max_new_tokens, limit, _Choice(temperature, top_k, generator))


class _Choice:
    """How the next token is chosen from logits (vocabulary)."""

    def __init__(self, temperature: float, top_k: int | None, generator: torch.Generator) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.generator = generator

    def __call__(self, logits: Tensor) -> int:
        if self.temperature == 0:
            return int(logits.argmax())
        values, tokens = logits.float().topk(min(self.top_k or len(logits), len(logits)))
        values = (values - values[0]) / self.temperature  # none is above 0, so none becomes infinite but those at -inf
        return int(tokens[torch.multinomial(values.softmax(-1), 1, generator=self.generator)])


def _pieces(
    model: nn.Module, tokenizer: Any, ids: list[int], count: int, limit: int | None, choose: _Choice
) -> Iterator[str]:
    device = next(model.parameters()).device
    end = _end_token(tokenizer)
    shown = len(tokenizer.decode(ids))
    for _ in range(count):
        with torch.inference_mode():
            tokens = torch.tensor([ids[-limit:] if limit else ids], device=device)
            token = choose(_logits(model(tokens))[0, -1])
        if token == end:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        if len(text) > shown and not text.endswith(_UNFINISHED):
            yield text[shown:]
            shown = len(text)
    rest = tokenizer.decode(ids)[shown:]
    if rest:
        yield rest


def _encode(tokenizer: Any, text: str) -> list[int]:
    encoded = tokenizer.encode(text)
    return list(getattr(encoded, "ids", encoded))


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output["logits"]
    if found is None:
        found = output[0] if isinstance(output, tuple | list) else output
    return found  # type: ignore[no-any-return]


def _context_length(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    for name in CONTEXT_NAMES:
        value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _end_token(tokenizer: Any) -> int | None:
    if hasattr(tokenizer, "eos_token_id"):
        return tokenizer.eos_token_id  # type: ignore[no-any-return]
    known = (tokenizer.token_to_id(name) for name in _END_NAMES)
    return next((token for token in known if token is not None), None)
