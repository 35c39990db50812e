"""`Trainer` and `Predicter` of language models, for subclasses written for DarwinKit's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Tokenizer
from torch import nn

from darkit.core.fabric import FabricTrainer
from darkit.core.logger import LogFieldnames
from darkit.data.text.tokenizers import special_token
from darkit.engine.config import TrainerConfig
from darkit.engine.metrics.undisturbed import kept
from darkit.errors import ConfigError
from darkit.lm.utils import lm_root
from darkit.prediction.predicter import Predicter as BasePredicter
from darkit.prediction.text.decoding import Decoder
from darkit.prediction.text.sampling import check_count

__all__ = ["LogFieldnames", "Predicter", "Trainer", "TrainerConfig"]


class Trainer(FabricTrainer):
    """A `darkit.core.FabricTrainer` whose runs are in ``models/lm``: ``Trainer(model, tokenizer, config)``."""

    _builds_registered = True

    @property
    def root(self) -> Path:
        return lm_root()


class Predicter(BasePredicter):
    """A `darkit.core.Predicter` of the runs in ``models/lm``.

    Args:
        name: The run's name.
        model: The model with its weights.
        tokenizer: The tokenizer; None loads that of the run.
        device: The model's device.
    """

    _builds_registered = True

    def __init__(self, name: str, model: nn.Module, tokenizer: Any = None, device: str = "cpu") -> None:
        super().__init__(name, model, device)
        if tokenizer is not None:
            self.tokenizer = tokenizer

    @classmethod
    def get_root(cls) -> Path:
        return lm_root()

    @classmethod
    def _make(cls, name: str, model: nn.Module, device: str) -> Self:
        return cls(name, model, tokenizer=cls.get_tokenizer(name), device=device)

    def predict(self, input: Any, ctx_len: int = 1024, **settings: Any) -> Any:
        """Continue a text with the likeliest tokens, which `_predict` returns one by one.

        Args:
            input: The text. With other settings or another input, it is as of `darkit.core.Predicter`.
            ctx_len: Maximum number of tokens, those of the text among them.
            **settings: Those of `darkit.core.Predicter`, such as ``temperature``.

        Returns:
            An iterator of pieces of text.

        Raises:
            ConfigError: There is no tokenizer, or the text has no tokens.
        """
        if settings or not isinstance(input, str):
            return super().predict(input, **settings)
        check_count("ctx_len", ctx_len)
        if self.tokenizer is None:
            raise ConfigError(f"The run {self.name!r} has no tokenizer, so it cannot take text: give it a tensor.")
        encoded = self.tokenizer.encode(input)
        ids = list(encoded.ids if isinstance(self.tokenizer, Tokenizer) else encoded)
        if not ids:
            raise ConfigError(f"The prompt {input!r} has no tokens.")
        return kept(self.model, self._continue(ids, ctx_len))

    def _continue(self, ids: list[int], ctx_len: int) -> Iterator[str]:
        decoder, end = Decoder(self.tokenizer, ids), special_token(self.tokenizer, "end")
        for _ in range(len(ids), ctx_len):
            with torch.inference_mode():
                token = int(self._predict(torch.tensor([ids], device=self.device)))
            if token == end:
                break
            ids.append(token)
            if piece := decoder.add(token):
                yield piece
        if rest := decoder.rest():
            yield rest
