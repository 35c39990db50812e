"""A row of tokens in windows, for models that predict the next token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from darkit.errors import DataError


class TokenWindows(Dataset[tuple[Tensor, Tensor]]):
    """Fixed windows over a row of tokens, each token a target exactly once.

    Args:
        tokens: Ids (tokens).
        length: Tokens per window; a rest that fills no window is left out.

    Raises:
        DataError: The length is below 1, or there are too few tokens for one window.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        if length < 1:
            raise DataError(f"A window must have 1 token at least, not {length}.")
        if len(tokens) < length + 1:
            raise DataError(f"{len(tokens)} tokens are too few for one window of {length} tokens and its target.")
        self.tokens = tokens
        self.length = length

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns tokens (length) and the ones that come next (length)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        window = self.tokens[index * self.length : (index + 1) * self.length + 1].long()
        return window[:-1], window[1:]


def unigram_cross_entropy(train: Tensor, val: Tensor, vocab_size: int) -> float:
    """Returns the cross-entropy in nats per token of a model that knows only how frequent each token is.

    Args:
        train: Ids (tokens) that are counted, each token once more than it occurs (Laplace's smoothing).
        val: Ids (tokens) that are predicted.
        vocab_size: Tokens in the vocabulary.
    """
    counts = torch.bincount(train.long(), minlength=vocab_size).double() + 1
    return float(-(counts / counts.sum()).log()[val.long()].mean())
