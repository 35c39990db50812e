"""A recurrent language model: long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

Shapes: B batch, T time, C hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_flag, check_share, check_sizes

_TIED_STD = 0.2  # a compromise between input and output


@dataclass
class LSTMConfig:
    """What an `LSTM` is built of.

    Raises:
        ValueError: A size is below 1, or a number is out of range.
    """

    vocab_size: int = 2048
    """Vocabulary size."""
    context_length: int = 128
    """Tokens per training window; generation has no limit."""
    num_layers: int = 2
    """Layers of memory cells."""
    hidden_size: int = 256
    """Size of a token's vector and of each layer."""
    dropout: float = 0.0
    """Probability of dropping an activation between layers while training, from 0 to below 1."""
    tie_embeddings: bool = False
    """Whether the output layer shares the embedding's weight; small models learn faster without."""

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "num_layers", "hidden_size")
        check_share(self, "dropout")
        check_flag(self, "tie_embeddings")


class State:
    """The recurrent state, whose size does not depend on the number of tokens.

    Attributes:
        length: Number of tokens so far.
        limit: None, since the context is unlimited.
        memory: Hidden and cell state, each (layers, B, C); None before the first token.
    """

    limit = None

    def __init__(self) -> None:
        self.length = 0
        self.memory: tuple[Tensor, Tensor] | None = None


class LSTM(nn.Module):
    """The language model."""

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        between = config.dropout if config.num_layers > 1 else 0.0
        self.lstm = nn.LSTM(
            config.hidden_size, config.hidden_size, config.num_layers, batch_first=True, dropout=between
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
            nn.init.normal_(self.head.weight, std=_TIED_STD)
        nn.init.zeros_(self.head.bias)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_hh"):  # open forget gates (Jozefowicz et al., 2015)
                with torch.no_grad():
                    parameter[config.hidden_size : 2 * config.hidden_size] = 1.0

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, *, cache: State | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict each next token.

        Args:
            tokens: Ids (B, T).
            targets: The next ids (B, T), or None; the loss ignores -100.
            cache: The state after the tokens before, which is updated; or None.

        Returns:
            Logits (B, T, V), and with targets also the mean cross-entropy in nats.
        """
        hidden, memory = self.lstm(self.embedding(tokens), None if cache is None else cache.memory)
        if cache is not None:
            cache.memory = memory
            cache.length += tokens.shape[1]
        logits: Tensor = self.head(self.dropout(hidden))
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def make_cache(self, batch_size: int = 1) -> State:
        """Return an initial state."""
        return State()
