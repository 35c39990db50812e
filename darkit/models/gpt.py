"""A small decoder-only transformer language model.

Pre-norm blocks as in GPT-2 (Radford et al., 2019), by default with the rotary positions of Su et al., "RoFormer"
(2021), the root-mean-square norm of Zhang and Sennrich (2019) and, optionally, the grouped queries of Ainslie et al.
(2023).

Shapes: B batch, T time, C hidden size, V vocabulary, H query heads, G key and value heads, D size of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_choice, check_flag, check_multiple, check_share, check_sizes

_NORMS = ("rms", "layer")
_POSITIONS = ("rotary", "learned")
_INIT_STD = 0.02  # GPT-2's
_ROTARY_BASE = 10_000.0


@dataclass
class GPTConfig:
    """The config of a `GPT`.

    Raises:
        ValueError: The sizes do not fit together, or a choice is unknown.
    """

    vocab_size: int = 2048
    """Vocabulary size."""
    context_length: int = 128
    """Maximum number of tokens that the model sees."""
    num_layers: int = 4
    """Blocks of attention and feed-forward network."""
    num_heads: int = 4
    """Query heads of each attention."""
    num_kv_heads: int | None = None
    """Key and value heads, a divisor of `num_heads`; None takes `num_heads`."""
    hidden_size: int = 192
    """Size of a token's vector, a multiple of `num_heads`."""
    dropout: float = 0.0
    """Probability of dropping an activation while training, from 0 to below 1."""
    norm: str = "rms"
    """``rms`` or ``layer``."""
    positions: str = "rotary"
    """``rotary`` or ``learned``."""
    tie_embeddings: bool = True
    """Whether the output layer shares the embedding's weight."""

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "num_layers", "num_heads", "hidden_size")
        if self.num_kv_heads is not None:
            check_sizes(self, "num_kv_heads")
            check_multiple(self, "num_heads", "num_kv_heads")
        check_multiple(self, "hidden_size", "num_heads")
        check_share(self, "dropout")
        check_choice(self, "norm", _NORMS)
        check_choice(self, "positions", _POSITIONS)
        check_flag(self, "tie_embeddings")
        if self.positions == "rotary" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError(f"Rotary positions need heads of even size, not {self.hidden_size // self.num_heads}.")

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.num_kv_heads or self.num_heads


class Cache:
    """Keys and values of the tokens so far, so that each new token costs one position.

    Attributes:
        length: Number of tokens so far.
    """

    def __init__(self, config: GPTConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        size = config.hidden_size // config.num_heads
        shape = (config.num_layers, 2, batch_size, config.kv_heads, config.context_length, size)
        self._store = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, G, T, D) of a layer of new tokens, and return those of all."""
        end = self.length + key.shape[2]
        self._store[layer, 0, :, :, self.length : end] = key
        self._store[layer, 1, :, :, self.length : end] = value
        return self._store[layer, 0, :, :, :end], self._store[layer, 1, :, :, :end]


class GPT(nn.Module):
    """The language model."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.context_length, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config, layer) for layer in range(config.num_layers))
        self.norm = _norm(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        cosines, sines = _rotary_tables(config)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self._initialize()

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, *, cache: Cache | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict each next token.

        Args:
            tokens: Ids (B, T).
            targets: The next ids (B, T), or None; the loss ignores -100.
            cache: The cache of the tokens before, which is extended; or None.

        Returns:
            Logits (B, T, V), and with targets also the mean cross-entropy in nats.

        Raises:
            ValueError: There are more tokens than the context length.
        """
        seen = cache.length if cache is not None else 0
        end = seen + tokens.shape[1]
        if end > self.config.context_length:
            raise ValueError(f"{end} tokens do not fit into a context of {self.config.context_length}.")
        hidden = self.embedding(tokens)
        if self.config.positions == "learned":
            hidden = hidden + self.positions.weight[seen:end]
        hidden = self.dropout(hidden)
        rotary = self.cosines[seen:end], self.sines[seen:end]
        for block in self.blocks:
            hidden = block(hidden, rotary, cache)
        if cache is not None:
            cache.length = end
        logits: Tensor = self.head(self.norm(hidden))
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def make_cache(self, batch_size: int = 1) -> Cache:
        """Return an empty cache for a batch of sequences."""
        weight = self.embedding.weight
        return Cache(self.config, batch_size, weight.device, weight.dtype)

    def _initialize(self) -> None:
        """Initialize as GPT-2: normal weights, those of residual outputs scaled down by the depth."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(parameter, std=_INIT_STD / math.sqrt(2 * self.config.num_layers if residual else 1))


class _Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = _Attention(config, layer)
        self.feed_forward_norm = _norm(config)
        self.up = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.down = nn.Linear(4 * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], cache: Cache | None) -> Tensor:
        attended: Tensor = self.dropout(self.attention(self.attention_norm(hidden), rotary, cache))
        hidden = hidden + attended
        computed: Tensor = self.dropout(self.down(F.gelu(self.up(self.feed_forward_norm(hidden)))))
        return hidden + computed


class _Attention(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.groups = config.num_heads, config.kv_heads
        self.size = config.hidden_size // config.num_heads
        self.rotary = config.positions == "rotary"
        self.dropout = config.dropout
        self.query = nn.Linear(config.hidden_size, self.heads * self.size, bias=False)
        self.key_value = nn.Linear(config.hidden_size, 2 * self.groups * self.size, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], cache: Cache | None) -> Tensor:
        batch, time, _ = hidden.shape
        query = self.query(hidden).view(batch, time, self.heads, self.size).transpose(1, 2)
        key, value = self.key_value(hidden).view(batch, time, 2, self.groups, self.size).permute(2, 0, 3, 1, 4)
        if self.rotary:
            query, key = _rotate(query, rotary), _rotate(key, rotary)
        seen = 0
        if cache is not None:
            seen = cache.length
            key, value = cache.extend(self.layer, key, value)
        mask = None
        if seen and time > 1:  # new token t sees all earlier tokens and the new ones up to t
            mask = torch.ones(time, seen + time, dtype=torch.bool, device=hidden.device).tril(seen)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=not seen,
            enable_gqa=self.groups != self.heads,
        )
        joined: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, time, -1))
        return joined


def _norm(config: GPTConfig) -> nn.Module:
    return nn.RMSNorm(config.hidden_size) if config.norm == "rms" else nn.LayerNorm(config.hidden_size)


def _rotary_tables(config: GPTConfig) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (T, D) of the rotation angles of each position and pair of dimensions."""
    size = config.hidden_size // config.num_heads
    frequencies = _ROTARY_BASE ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(config.context_length).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(vectors: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate vectors (B, H, T, D) by their positions; the halves of D are the pairs."""
    cosines, sines = (table.to(vectors.dtype) for table in rotary)
    first, second = vectors.chunk(2, dim=-1)
    rotated: Tensor = vectors * cosines + torch.cat((-second, first), dim=-1) * sines
    return rotated
