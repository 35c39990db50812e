"""Text generation with an encoder and a decoder, as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darkit.data.text.tokenizers import encode_batch, needed_token, special_token
from darkit.errors import ConfigError
from darkit.prediction.text.language import Reader, context_of, parameter_names
from darkit.prediction.text.sampling import Sampling
from darkit.prediction.text.together import Text, Together


class TargetReader(Reader):
    """Reader of a growing target with a fixed source.

    Args:
        model: Takes ``input_ids`` and ``decoder_input_ids``; a model of transformers encodes the source once.
        source: The tokens of the source.
    """

    def __init__(self, model: nn.Module, source: Sequence[int]) -> None:
        super().__init__(model, None)
        self._given: dict[str, Any] = {"input_ids": self._tensor([source])}
        names = parameter_names(model)
        if "attention_mask" in names:
            self._given["attention_mask"] = torch.ones_like(self._given["input_ids"])
        if "encoder_outputs" in names and callable(getattr(model, "get_encoder", None)):
            with torch.inference_mode():
                self._given["encoder_outputs"] = model.get_encoder()(**self._given)  # type: ignore[operator]
            del self._given["input_ids"]

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        tokens = self._tensor(rows)
        return self._logits(self._call(**self._given, decoder_input_ids=tokens), tokens)


def stream_target(model: nn.Module, tokenizer: Any, source: str, **settings: Any) -> Iterator[str]:
    """Generate the target of a source text.

    Args:
        model: Takes ``input_ids`` and ``decoder_input_ids``.
        tokenizer: The tokenizer of both texts.
        source: The source text.
        **settings: As for `darkit.prediction.text.sampling.Sampling`.

    Yields:
        Pieces of text in whole characters.

    Raises:
        ConfigError: A setting is out of range, or the text has no tokens.
    """
    sampling = Sampling(**settings)
    end = needed_token(tokenizer, "end", "a target")
    (ids,) = encode_batch(tokenizer, [source])
    if not ids:
        raise ConfigError(f"The text {source!r} has no tokens.")
    limit = context_of(model)
    reader = TargetReader(model, [*ids[: limit - 1 if limit else None], end])
    return Together(reader, [Text(tokenizer, [_start(model, tokenizer, end)], sampling, {end})]).streams()[0]


def _start(model: nn.Module, tokenizer: Any, end: int) -> int:
    """Return the start token of a target: that of the model's config, or that of the data."""
    configured = getattr(getattr(model, "config", None), "decoder_start_token_id", None)
    known = (configured, special_token(tokenizer, "cls"), special_token(tokenizer, "pad"))
    return next((token for token in known if token is not None), end)
