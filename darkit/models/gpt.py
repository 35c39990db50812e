"""A small decoder-only transformer language model.

Pre-norm blocks as in GPT-2 (Radford et al., 2019), by default with the rotary positions of Su et al., "RoFormer"
(2021), the root-mean-square norm of Zhang and Sennrich (2019) and, optionally, the grouped queries of Ainslie et al.
(2023).

Shapes: B batch, T time, C hidden size, V vocabulary, H query heads, G key and value heads, D size of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_choice, check_flag, check_multiple, check_share, check_sizes
from .functions import as_pairs, cross_entropy, has_own_backward, is_plain, rms_norm, split_rotated
from .laid_out import LaidOut, side_by_side

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
        linear: The layers that compute the new tokens.
    """

    def __init__(self, config: GPTConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        size = config.hidden_size // config.num_heads
        shape = (config.num_layers, 2, batch_size, config.kv_heads, config.context_length, size)
        self._store = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0
        self.linear = LaidOut()

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
        logits: Tensor = _linear(cache)(self.norm(hidden), self.head)
        if targets is None:
            return logits
        return logits, cross_entropy(logits.flatten(0, 1), targets.flatten())

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
        linear = _linear(cache)
        wide = F.gelu(linear(self.feed_forward_norm(hidden), self.up))
        computed: Tensor = self.dropout(linear(wide, self.down))
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
        plain = cache is None and is_plain(self.query) and is_plain(self.key_value)
        if plain and self.rotary and has_own_backward(hidden):
            query, key, value = self._project_rotated(hidden, rotary)
        else:
            parts = self._project(hidden, plain, cache).view(batch, time, -1, self.size)
            turned, value = torch.split(parts, [self.heads + self.groups, self.groups], dim=2)
            if self.rotary:
                turned = _rotate(turned, rotary)
            query, key = torch.split(turned, [self.heads, self.groups], dim=2)
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))
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
        return _linear(cache)(mixed.transpose(1, 2).reshape(batch, time, -1), self.output)

    def _project(self, hidden: Tensor, plain: bool, cache: Cache | None) -> Tensor:
        """Return queries, keys and values side by side, as one product where joining the weights pays."""
        if plain:
            return F.linear(hidden, torch.cat((self.query.weight, self.key_value.weight)))
        return _linear(cache)(hidden, self.query, self.key_value)

    def _project_rotated(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, with the pairs of D side by side in the first two."""
        key, value = self.key_value.weight.chunk(2)
        weight = torch.cat((as_pairs(self.query.weight, self.size), as_pairs(key, self.size), value))
        projected = torch.unflatten(F.linear(hidden, weight), -1, (-1, self.size))
        cosines, sines = (table[:, : self.size // 2].to(hidden.dtype) for table in rotary)
        return split_rotated(projected, self.heads, self.groups, torch.complex(cosines, sines))


class _RMSNorm(nn.RMSNorm):
    """The norm of torch, with the backward pass of `darkit.models.functions.rms_norm` where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        if not has_own_backward(x):
            return super().forward(x)
        eps = self.eps or torch.finfo(x.dtype).eps
        if torch.is_grad_enabled():
            return rms_norm(x, self.weight, eps)
        if x.numel() == x.shape[-1]:  # one new token, where a call costs more than what it computes
            norm = float(torch.linalg.vector_norm(x))
            return (x * self.weight).mul_(1 / math.sqrt(norm * norm / x.numel() + eps))
        if x.dim() == 3 and x.shape[1] == 1:  # a new token of several texts
            scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
            return (x * self.weight).mul_(scale)
        return super().forward(x)


def _linear(cache: Cache | None) -> Callable[..., Tensor]:
    """Return the function that calls linear layers, side by side."""
    return side_by_side if cache is None else cache.linear


def _norm(config: GPTConfig) -> nn.Module:
    return _RMSNorm(config.hidden_size) if config.norm == "rms" else nn.LayerNorm(config.hidden_size)


def _rotary_tables(config: GPTConfig) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (T, D) of the rotation angles of each position and pair of dimensions."""
    size = config.hidden_size // config.num_heads
    frequencies = _ROTARY_BASE ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(config.context_length).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(vectors: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate vectors (B, T, H, D) by their positions; the halves of D are the pairs."""
    cosines, sines = (table[:, None].to(vectors.dtype) for table in rotary)
    first, second = vectors.chunk(2, dim=-1)
    rotated: Tensor = vectors * cosines + torch.cat((-second, first), dim=-1) * sines
    return rotated
