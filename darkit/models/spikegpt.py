"""A spiking language model after SpikeGPT (Zhu, Zhao, Li and Eshraghian, 2023).

Taken from there: blocks of token shift, a linear-time weighted mean over the past (RWKV's, Peng et al., 2023) and a
gated feed-forward network with squared ReLU; the matrices take binary spikes of leaky neurons with surrogate
gradients. Changed: the neurons are at the start of each half of a block instead of its end, and the residual stream
stays real, which trains better at this size; and the mean is computed for chunks of time steps by matrix products,
with bounded keys instead of a running maximum.

The mean over the past, per channel, with decay w > 0 and bonus u for the current token:
``wkv[t] = (sum_{i<t} e^{-(t-1-i)w + k[i]} v[i] + e^{u + k[t]} v[t]) / (the same without v)``.

Shapes: B batch, T time, C hidden size, F size of the feed-forward network, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_choice, check_flag, check_positive, check_share, check_sizes
from .functions import cross_entropy
from .spiking import SURROGATES, SpikeLinear, leaky_over_time, snntorch

_INIT_STD = 0.02
_LARGEST_KEY = 30.0  # bound of the exponent, so that sums stay finite and above 0 in float32
_CHUNK = 32  # time steps per matrix product


@dataclass
class SpikeGPTConfig:
    """The config of a `SpikeGPT`.

    Raises:
        ValueError: A size is below 1, or a number or choice is out of range.
    """

    vocab_size: int = 2048
    """Vocabulary size."""
    context_length: int = 128
    """Tokens per training window; generation has no limit."""
    num_layers: int = 4
    """Blocks of time mixing and feed-forward network."""
    hidden_size: int = 192
    """Size of a token's vector."""
    feed_forward_size: int = 672
    """Size of the feed-forward network; 3.5 times `hidden_size` gives a block of a `GPT` its parameters."""
    beta: float = 0.25
    """Decay factor of a neuron's potential per token, from 0 to below 1."""
    threshold: float = 1.0
    """The potential at which a neuron fires, above 0."""
    tie_embeddings: bool = True
    """Whether the output layer shares the embedding's weight."""
    surrogate: str = "atan"
    """Gradient of a spike in the backward pass: ``atan``, ``fast_sigmoid``, ``sigmoid`` or ``straight_through``."""
    learn_beta: bool = False
    """Whether `beta` is learnt, one value for the neurons of each half of a block."""
    learn_threshold: bool = False
    """Whether `threshold` is learnt, one value for the neurons of each half of a block."""

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "num_layers", "hidden_size", "feed_forward_size")
        check_share(self, "beta")
        check_positive(self, "threshold")
        check_flag(self, "tie_embeddings")
        check_choice(self, "surrogate", SURROGATES)
        check_flag(self, "learn_beta")
        check_flag(self, "learn_threshold")


class State:
    """The recurrent state, whose size does not depend on the number of tokens.

    Attributes:
        length: Number of tokens so far.
        limit: None, since the context is unlimited.
    """

    limit = None

    def __init__(self, config: SpikeGPTConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        self.length = 0
        rest = torch.zeros(batch_size, config.hidden_size, device=device, dtype=dtype)
        empty = _BlockState(_HalfState(rest, rest), torch.stack((rest, rest)), _HalfState(rest, rest))
        self.blocks = [empty] * config.num_layers


class _HalfState(NamedTuple):
    """State of half a block: the potential of its neurons (B, C), and their spikes at the last token (B, C)."""

    potential: Tensor
    spikes: Tensor


class _BlockState(NamedTuple):
    """State of a block: that of its halves, and numerator and denominator of the mean (2, B, C)."""

    mixing: _HalfState
    sums: Tensor
    feeding: _HalfState


class SpikeGPT(nn.Module):
    """The language model.

    Raises:
        ImportError: ``snntorch`` is not installed.
    """

    def __init__(self, config: SpikeGPTConfig) -> None:
        super().__init__()
        snntorch()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(_Block(config, layer) for layer in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        self._initialize()

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
        hidden = self.embedding(tokens)
        state = cache if cache is not None else self.make_cache(tokens.shape[0])
        for layer, block in enumerate(self.blocks):
            hidden, state.blocks[layer] = block(hidden, state.blocks[layer])
        state.length += tokens.shape[1]
        logits: Tensor = self.head(self.norm(hidden))
        if targets is None:
            return logits
        return logits, cross_entropy(logits.flatten(0, 1), targets.flatten())

    def make_cache(self, batch_size: int = 1) -> State:
        """Return an initial state for a batch of sequences."""
        weight = self.embedding.weight
        return State(self.config, batch_size, weight.device, weight.dtype)

    def _initialize(self) -> None:
        """Initialize as GPT-2: normal weights, those of residual outputs scaled down by the depth."""
        depth = math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(parameter, std=_INIT_STD / depth)
            elif name.endswith("weight") and parameter.ndim > 1:
                nn.init.normal_(parameter, std=_INIT_STD)


class _Block(nn.Module):
    def __init__(self, config: SpikeGPTConfig, layer: int) -> None:
        super().__init__()
        self.mixing_norm = nn.LayerNorm(config.hidden_size)
        self.mixing_neurons = leaky_over_time(config)
        self.mixing = _TimeMixing(config, layer)
        self.feeding_norm = nn.LayerNorm(config.hidden_size)
        self.feeding_neurons = leaky_over_time(config)
        self.feeding = _ChannelMixing(config, layer)

    def forward(self, hidden: Tensor, state: _BlockState) -> tuple[Tensor, _BlockState]:
        spikes, before, mixing = _fire(self.mixing_norm(hidden), self.mixing_neurons, state.mixing)
        mixed, sums = self.mixing(spikes, before, state.sums)
        hidden = hidden + mixed
        spikes, before, feeding = _fire(self.feeding_norm(hidden), self.feeding_neurons, state.feeding)
        hidden = hidden + self.feeding(spikes, before)
        return hidden, _BlockState(mixing, sums.detach(), feeding)


def _fire(inputs: Tensor, neurons: nn.Module, state: _HalfState) -> tuple[Tensor, Tensor, _HalfState]:
    """Return spikes (B, T, C), those of the previous tokens (B, T, C), and the state after these tokens."""
    spikes, potential = neurons(inputs, state.potential)
    before = torch.cat((state.spikes[:, None], spikes[:, :-1]), dim=1)
    return spikes, before, _HalfState(potential, spikes[:, -1].detach())


class _TimeMixing(nn.Module):
    def __init__(self, config: SpikeGPTConfig, layer: int) -> None:
        super().__init__()
        size = config.hidden_size
        place = torch.arange(size) / max(1, size - 1)
        depth = layer / max(1, config.num_layers - 1)
        self.decay = nn.Parameter(-5 + 8 * place ** (0.7 + 1.3 * depth))  # log of w, initialized as in RWKV
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * ((torch.arange(size) + 1) % 3 - 1))
        share = place ** (1 - layer / config.num_layers)  # weight of the current token in each channel
        self.key_share = nn.Parameter(share.clone())
        self.value_share = nn.Parameter(share + 0.3 * depth)
        self.gate_share = nn.Parameter(share**0.5)
        self.key = SpikeLinear(size, size, bias=False)
        self.value = SpikeLinear(size, size, bias=False)
        self.gate = SpikeLinear(size, size, bias=False)
        self.output = nn.Linear(size, size, bias=False)

    def forward(self, spikes: Tensor, before: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        key = self.key(torch.lerp(before, spikes, self.key_share))
        value = self.value(torch.lerp(before, spikes, self.value_share))
        gate = torch.sigmoid(self.gate(torch.lerp(before, spikes, self.gate_share)))
        mixed, sums = mix_over_time(key, value, self.decay.exp(), self.bonus, sums)
        return self.output(gate * mixed), sums


class _ChannelMixing(nn.Module):
    def __init__(self, config: SpikeGPTConfig, layer: int) -> None:
        super().__init__()
        size = config.hidden_size
        share = (torch.arange(size) / max(1, size - 1)) ** (1 - layer / config.num_layers)
        self.up_share = nn.Parameter(share.clone())
        self.gate_share = nn.Parameter(share.clone())
        self.up = SpikeLinear(size, config.feed_forward_size, bias=False)
        self.down = nn.Linear(config.feed_forward_size, size, bias=False)
        self.gate = SpikeLinear(size, size, bias=False)

    def forward(self, spikes: Tensor, before: Tensor) -> Tensor:
        wide = F.relu(self.up(torch.lerp(before, spikes, self.up_share))).square()
        joined: Tensor = torch.sigmoid(self.gate(torch.lerp(before, spikes, self.gate_share))) * self.down(wide)
        return joined


def mix_over_time(key: Tensor, value: Tensor, decay: Tensor, bonus: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weighted mean over the past of each token; see the formula in the module's docstring.

    Args:
        key: Log weights (B, T, C).
        value: Values to average (B, T, C).
        decay: Decrease of a log weight per token (C), above 0.
        bonus: Addition to the log weight of the current token (C).
        sums: Numerator and denominator of the tokens before (2, B, C).

    Returns:
        The means (B, T, C), and the sums after these tokens (2, B, C).
    """
    weights = key.clamp(-_LARGEST_KEY, _LARGEST_KEY).exp()
    # (C, 2, B, T) in memory too, forwards and backwards: products of other layouts are copied channel by channel
    both = torch.stack([part.permute(2, 0, 1) for part in (weights * value, weights)], dim=1)
    past = sums.permute(2, 0, 1)[..., None]  # (C, 2, B, 1)
    present = bonus.clamp(-5, 5).exp()
    pieces, matrices = [], {}
    for chunk in torch.split(both, _CHUNK, dim=-1):
        size = chunk.shape[-1]
        if size not in matrices:
            matrices[size] = _fading(size, decay, present)
        joined = torch.cat((past, chunk), dim=-1)
        mixed = torch.bmm(joined.flatten(1, 2), matrices[size]).view_as(joined)
        piece, past = torch.split(mixed, [size, 1], dim=-1)
        pieces.append(piece)
    numerator, denominator = torch.cat(pieces, dim=-1).unbind(1)
    return (numerator / denominator).permute(1, 2, 0), past[..., 0].permute(1, 2, 0)


def _fading(size: int, decay: Tensor, present: Tensor) -> Tensor:
    """Return the weights of a chunk's sums: from what came before and each token, to each token and what is left.

    Args:
        size: Tokens of the chunk, T.
        decay: Decrease of a log weight per token (C).
        present: Weight of the current token itself (C).

    Returns:
        Weights (C, 1 + T, T + 1).
    """
    places = torch.arange(size + 1, device=decay.device)
    between = places[None, :] - places[:, None]  # tokens between the one of a row and that of a column
    fading = torch.exp(-decay[:, None, None] * between.clamp(min=0)) * (between >= 0)
    return fading + present[:, None, None] * (between == -1)
