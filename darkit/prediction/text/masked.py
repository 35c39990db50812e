"""Candidates for masked words from a masked language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darkit.data.text.specials import special_ids
from darkit.data.text.tokenizers import encode_batch, needed_token, special_token
from darkit.engine.data.samples import describe
from darkit.errors import ConfigError, ModelError
from darkit.prediction.text.decoding import decode_function
from darkit.prediction.text.language import call_by_names, context_of, logits_of
from darkit.prediction.text.sampling import check_count

MASK = "[MASK]"  # works with every tokenizer


@dataclass(frozen=True)
class Candidate:
    """A candidate for a masked word.

    Attributes:
        token: Its text.
        probability: Its probability.
    """

    token: str
    probability: float


def fill_masks(model: nn.Module, tokenizer: Any, text: str, *, top: int = 5) -> list[list[Candidate]]:
    """Return candidates for the masked words of a text.

    Args:
        model: Returns logits (batch, time, vocabulary).
        tokenizer: A tokenizer with a mask token.
        text: A text with ``[MASK]``, or with the tokenizer's own mask token, once or more often.
        top: Number of candidates for each mask.

    Returns:
        The candidates for each mask, the likeliest first, without special tokens.

    Raises:
        ConfigError: The text has no mask, or is longer than the model's context.
        ModelError: The model returns no logits.
    """
    check_count("top", top)
    if not isinstance(text, str):
        raise ConfigError(f"A text to fill must be a str, not {type(text).__name__}.")
    mask = needed_token(tokenizer, "mask", "filling a text")
    name = mask_name(tokenizer)
    (ids,) = encode_batch(tokenizer, [text.replace(MASK, name)])
    if mask not in ids:
        hint = f"{MASK} or {name}" if name != MASK else MASK
        raise ConfigError(f"The text has no {hint}: write it in the place of a word.")
    cls, sep = special_token(tokenizer, "cls"), special_token(tokenizer, "sep")
    row = [*([] if cls is None else [cls]), *ids, *([] if sep is None else [sep])]
    limit = context_of(model)
    if limit and len(row) > limit:
        raise ConfigError(f"The text has {len(row)} tokens, but the model sees at most {limit}: shorten it.")
    logits = logits_of(call_by_names(model, [row]))
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[1] != len(row):
        raise ModelError(
            f"A masked model returns logits (batch, time, vocabulary), but the model returned {describe(logits)}."
        )
    probabilities = logits[0].detach().float().softmax(-1).cpu()
    special = torch.tensor(sorted(token for token in special_ids(tokenizer) if token < probabilities.shape[-1]))
    decode = decode_function(tokenizer)
    found = []
    for place in (place for place, token in enumerate(row) if token == mask):
        best = probabilities[place].index_fill(0, special.long(), -1.0).topk(min(top, probabilities.shape[-1]))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found.append([Candidate(decode([token]), value) for token, value in pairs if value >= 0])
    return found


def mask_name(tokenizer: Any) -> str:
    """Return the text of a tokenizer's mask token."""
    mask = needed_token(tokenizer, "mask", "filling a text")
    convert = getattr(tokenizer, "id_to_token", None) or tokenizer.convert_ids_to_tokens
    return str(convert(mask))
