"""Text generation with a language model, as a stream."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from darkit.data.text.specials import special_ids
from darkit.data.text.tokenizers import encode_batch, special_token
from darkit.errors import ConfigError
from darkit.prediction.text.language import make_reader
from darkit.prediction.text.sampling import Sampling, check_count
from darkit.prediction.text.together import Text, Together, in_groups


def stream_text(
    model: nn.Module,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] = (),
    seed: int | None = None,
    context_length: int | None = None,
    ctx_len: int | None = None,
    use_cache: bool = True,
) -> Iterator[str]:
    """Continue a prompt. Several may be continued in turns, each with the same result as alone.

    Args:
        model: Returns logits (batch, time, vocabulary), or an output with ``logits`` or with them first.
        tokenizer: A `tokenizers.Tokenizer` or a transformers tokenizer.
        prompt: The text to continue.
        max_new_tokens: Maximum number of new tokens, at least 1.
        temperature: Divisor of the logits; 0 always takes the likeliest token.
        top_k: Sample from this many of the likeliest tokens; None takes all.
        top_p: Sample from the fewest likeliest tokens with this total probability; None takes all.
        stop: Texts that end the continuation and are not part of it.
        seed: Seed of the sampling; None draws another text each time.
        context_length: Maximum tokens that the model sees; None takes the model's limit.
        ctx_len: Alias of ``context_length``.
        use_cache: Use the model's cache if it has one; the text is the same without, but slower.

    Yields:
        Pieces of text in whole characters; together they are the continuation. It ends at the tokenizer's end-of-text
        token, at a stop, or after ``max_new_tokens``.

    Raises:
        ConfigError: A setting is out of range, or the prompt has no tokens.
    """
    sampling = Sampling(max_new_tokens, temperature, top_k, top_p, stop, seed)
    return _streams(model, tokenizer, [prompt], sampling, _one_limit(context_length, ctx_len), use_cache)[0]


def stream_texts(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    context_length: int | None = None,
    ctx_len: int | None = None,
    use_cache: bool = True,
    **sampling: Any,
) -> list[Iterator[str]]:
    """Continue several prompts, together where the model has a cache.

    Args:
        model: As for `stream_text`.
        tokenizer: As for `stream_text`.
        prompts: The texts to continue.
        context_length: As for `stream_text`.
        ctx_len: As for `stream_text`.
        use_cache: As for `stream_text`.
        **sampling: The settings of `darkit.prediction.text.sampling.Sampling`, the same for each.

    Returns:
        For each prompt what `stream_text` returns. Logits differ by rounding from those of the prompt alone.

    Raises:
        ConfigError: A setting is out of range, or a prompt has no tokens.
    """
    limit = _one_limit(context_length, ctx_len)
    return _streams(model, tokenizer, prompts, Sampling(**sampling), limit, use_cache)


def _streams(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], sampling: Sampling, limit: int | None, use_cache: bool
) -> list[Iterator[str]]:
    reader = make_reader(model, limit, use_cache=use_cache)
    ends = _ends(model, tokenizer)
    texts = []
    for prompt in prompts:
        ids = encode_prompt(tokenizer, prompt)
        if not ids:
            raise ConfigError(f"The prompt {prompt!r} has no tokens.")
        if reader.limit and len(ids) > reader.limit:
            message = f"The prompt has {len(ids)} tokens; the model sees the last {reader.limit}."
            warnings.warn(message, UserWarning, stacklevel=3)
        texts.append(Text(tokenizer, ids, sampling, ends, reader.limit))
    groups = in_groups(texts, sampling.max_new_tokens) if reader.several else [[text] for text in texts]
    found: dict[Text, Iterator[str]] = {}
    for group in groups:
        streams = Together(make_reader(model, limit, use_cache=use_cache), group).streams()
        found |= zip(group, streams, strict=True)
    return [found[text] for text in texts]


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Encode a prompt as darkit's data, without added special tokens but the first one of a transformers tokenizer."""
    if not isinstance(prompt, str):
        raise ConfigError(f"A prompt must be a text, not {type(prompt).__name__}.")
    (ids,) = encode_batch(tokenizer, [prompt])
    first = getattr(tokenizer, "bos_token_id", None)
    if ids and first is not None and ids[0] != first:
        with_special = list(tokenizer(prompt, truncation=False, padding=False)["input_ids"])
        if with_special[:1] == [first]:
            return [first, *ids]
    return ids


def _one_limit(context_length: int | None, ctx_len: int | None) -> int | None:
    for name, count in (("context_length", context_length), ("ctx_len", ctx_len)):
        if count is not None:
            check_count(name, count)
    if context_length is not None and ctx_len is not None and context_length != ctx_len:
        raise ConfigError(f"context_length ({context_length}) and ctx_len ({ctx_len}) mean the same: give one of them.")
    return ctx_len if context_length is None else context_length


def _ends(model: nn.Module, tokenizer: Any) -> set[int]:
    """Return the end tokens of the tokenizer and of a transformers model."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    special = special_ids(tokenizer)
    ends = {token for token in (named if isinstance(named, list) else [named]) if token in special}
    end = special_token(tokenizer, "end")
    return ends if end is None else ends | {end}
