"""A spiking masked language model after SpikeLM (Xing et al., 2024), small.

Taken from there: neurons with signed spikes, {-1, 0, 1}; an elastic amplitude that scales the spikes; an elastic
threshold that sets the firing rate; both learned, one of each per group of neurons; and a few time steps in which each
leaky neuron integrates the same input. Every matrix of the encoder takes spikes; attention scores and the output
layers use real numbers. Changed: pre-norm blocks, and learned thresholds instead of ones that follow the mean of the
input.

Shapes: S time steps, B batch, T tokens, C hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_multiple, check_positive, check_share, check_sizes
from .spiking import snntorch

_INIT_STD = 0.02  # BERT's


@dataclass
class SpikeBERTConfig:
    """The config of a `SpikeBERT`.

    Raises:
        ValueError: A size is below 1, the sizes do not fit together, or a number is out of range.
    """

    vocab_size: int = 2048
    """Vocabulary size."""
    context_length: int = 128
    """Maximum number of tokens that the model sees."""
    num_layers: int = 4
    """Blocks of attention and feed-forward network."""
    num_heads: int = 4
    """Heads of each attention."""
    hidden_size: int = 128
    """Size of a token's vector, a multiple of `num_heads`."""
    feed_forward_size: int = 512
    """Size of the feed-forward network."""
    type_vocab_size: int = 2
    """Number of segment types: the first and the second sentence of a pair."""
    time_steps: int = 2
    """Time steps of the neurons per input."""
    beta: float = 0.5
    """Decay factor of a neuron's potential per step, from 0 to below 1."""
    threshold: float = 0.7
    """Initial threshold of the absolute potential, above 0."""

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "num_layers", "num_heads", "hidden_size")
        check_sizes(self, "feed_forward_size", "type_vocab_size", "time_steps")
        check_multiple(self, "hidden_size", "num_heads")
        check_share(self, "beta")
        check_positive(self, "threshold")


class SpikeBERT(nn.Module):
    """The masked language model, with the arguments and outputs of BERT in ``transformers``.

    Raises:
        ImportError: ``snntorch`` is not installed.
    """

    def __init__(self, config: SpikeBERTConfig) -> None:
        super().__init__()
        snntorch()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.context_length, config.hidden_size)
        self.types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.transform_norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.head.weight = self.tokens.weight
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Predict the masked tokens.

        Args:
            input_ids: Ids (B, T), some of them the mask token.
            attention_mask: 1 for tokens and 0 for padding (B, T), or None.
            token_type_ids: The segment type of each token (B, T), or None.
            labels: The masked tokens (B, T), -100 elsewhere, or None.
            next_sentence_label: 0 if the second sentence follows the first, 1 if not (B), or None.

        Returns:
            ``logits`` (B, T, V) and ``next_sentence_logits`` (B, 2), and with labels also ``loss`` in nats, plus
            that of the next sentence.

        Raises:
            ValueError: There are more tokens than the context length.
        """
        time = input_ids.shape[1]
        if time > self.config.context_length:
            raise ValueError(f"{time} tokens do not fit into a context of {self.config.context_length}.")
        hidden = self.tokens(input_ids) + self.positions.weight[:time]
        hidden = hidden + (self.types.weight[0] if token_type_ids is None else self.types(token_type_ids))
        mask = None if attention_mask is None else attention_mask.bool()[None, :, None, None, :]
        steps = hidden.expand(self.config.time_steps, *hidden.shape)
        for block in self.blocks:
            steps = block(steps, mask)
        hidden = self.norm(steps.mean(0))
        found = {
            "logits": self.head(self.transform_norm(F.gelu(self.transform(hidden)))),
            "next_sentence_logits": self.next_sentence(torch.tanh(self.pooler(hidden[:, 0]))),
        }
        losses = []
        if labels is not None:
            losses.append(F.cross_entropy(found["logits"].flatten(0, 1), labels.flatten()))
        if next_sentence_label is not None:
            losses.append(F.cross_entropy(found["next_sentence_logits"], next_sentence_label.flatten()))
        elif losses:  # all parameters get a gradient, as needed on several devices
            losses.append(0 * found["next_sentence_logits"].sum())
        if losses:
            found["loss"] = torch.stack(losses).sum()
        return found


class ElasticNeurons(nn.Module):
    """Leaky neurons with signed spikes, a learned threshold and a learned amplitude.

    U[s] = beta (U[s-1] - spike[s-1]) + X[s]; a spike is the amplitude, with U's sign, where |U| is above the threshold.
    In the backward pass, both steps have the surrogate gradient of ``snntorch``'s arc tangent.

    Args:
        beta: Decay factor of the potential per step.
        threshold: The initial threshold and amplitude.
    """

    spike_time_axis = 0
    """The axis of time in the spikes, for whatever measures them."""

    def __init__(self, beta: float, threshold: float) -> None:
        super().__init__()
        self.beta = beta
        self.surrogate = snntorch().surrogate.atan()
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        self.amplitude = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the neurons over time.

        Args:
            inputs: The input currents (S, ...).

        Returns:
            Spikes (S, ...), each -amplitude, 0 or amplitude.
        """
        threshold = self.threshold.abs()
        potential: Tensor | None = None
        spikes: list[Tensor] = []
        for step in inputs.unbind():
            potential = step if potential is None else self.beta * (potential - self.amplitude * spikes[-1]) + step
            spikes.append(self.surrogate(potential - threshold) - self.surrogate(-potential - threshold))
        return self.amplitude * torch.stack(spikes)


class _Block(nn.Module):
    def __init__(self, config: SpikeBERTConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_heads
        self.attention_norm = nn.LayerNorm(size)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.neurons = nn.ModuleList(ElasticNeurons(config.beta, config.threshold) for _ in range(4))
        self.query_key_value = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.up = nn.Linear(size, config.feed_forward_size)
        self.down = nn.Linear(config.feed_forward_size, size)
        self.up_norm = nn.LayerNorm(config.feed_forward_size)
        self.mixed_norm = nn.LayerNorm(size)

    def forward(self, steps: Tensor, mask: Tensor | None) -> Tensor:
        """Return steps (S, B, T, C) from those before."""
        before_attention, before_output, before_up, before_down = self.neurons
        spikes = before_attention(self.attention_norm(steps))
        joined = self.query_key_value(spikes).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        query, key, value = joined.unbind()
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(2, 3).flatten(-2)
        spikes = before_output(self.mixed_norm(mixed))
        steps = steps + self.output(spikes)
        spikes = before_up(self.feed_forward_norm(steps))
        spikes = before_down(self.up_norm(self.up(spikes)))
        whole: Tensor = steps + self.down(spikes)
        return whole
