"""Training speed of language models of one size: ``python tests/benchmarks/gpt.py CONTENDER [STEPS]``.

``plain`` is a GPT as small training scripts write it, nanoGPT's among them: learned positions, layer norms, biases,
queries, keys and values from one layer, and AdamW; its steps took within 3 % of nanoGPT's own. ``gpt`` and ``spikegpt``
are darkit's models with their default settings in the same loop, and ``fit`` is what ``darkit.fit`` makes of ``gpt``
with everything on. All use as many threads as torch takes. Prints tokens per second, from the median of the steps.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """Sizes of a language model."""

    vocabulary: int = 2048
    context: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 192


SIZES = Sizes()
BATCH = 16
WARM = 4
times: list[float] = []


class _Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        size = sizes.hidden
        self.heads = sizes.heads
        self.first, self.second = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention, self.output = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.feed = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, hidden: Tensor) -> Tensor:
        parts = self.attention(self.first(hidden)).chunk(3, dim=2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.output(mixed.transpose(1, 2).flatten(2))
        return hidden + self.feed(self.second(hidden))


class Plain(nn.Module):
    """A GPT as training scripts write it."""

    def __init__(self, sizes: Sizes = SIZES) -> None:
        super().__init__()
        size = sizes.hidden
        self.tokens, self.places = nn.Embedding(sizes.vocabulary, size), nn.Embedding(sizes.context, size)
        self.blocks = nn.Sequential(*(_Block(sizes) for _ in range(sizes.layers)))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, sizes.vocabulary, bias=False)
        self.tokens.weight = self.head.weight
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        logits = self.head(self.norm(self.blocks(hidden)))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def gpt(sizes: Sizes = SIZES) -> nn.Module:
    """Make darkit's model."""
    from darkit.models.gpt import GPT, GPTConfig

    return GPT(GPTConfig(sizes.vocabulary, sizes.context, sizes.layers, sizes.heads, hidden_size=sizes.hidden))


def spikegpt() -> nn.Module:
    """Make darkit's spiking model."""
    from darkit.models.spikegpt import SpikeGPT, SpikeGPTConfig

    return SpikeGPT(SpikeGPTConfig(SIZES.vocabulary, SIZES.context, SIZES.layers, SIZES.hidden))


def data(steps: int) -> Tensor:
    """Make the windows of all steps, each with the token after it."""
    return torch.randint(SIZES.vocabulary, ((steps + WARM + 1) * BATCH, SIZES.context + 1))


def loop(model: nn.Module, steps: int) -> None:
    """Train a model in a loop of one's own."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for windows in data(steps).split(BATCH):
        times.append(time.perf_counter())
        model(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())[1].backward()
        optimizer.step()
        optimizer.zero_grad()


def fit(steps: int) -> None:
    """Train darkit's model as its users do."""
    import darkit

    model = gpt()
    model.register_forward_pre_hook(lambda module, given: times.append(time.perf_counter()))
    windows = data(steps)
    pair = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DARWIN_KIT_HOME"] = folder
        darkit.fit(model, pair, device="cpu", batch_size=BATCH, max_step=steps + WARM, log_step_interval=1)


CONTENDERS: dict[str, Callable[[int], None]] = {
    "plain": lambda steps: loop(Plain(), steps),
    "gpt": lambda steps: loop(gpt(), steps),
    "spikegpt": lambda steps: loop(spikegpt(), steps),
    "fit": fit,
}


def main(contender: str, steps: str = "25") -> None:
    """Run one contender and print its tokens per second."""
    torch.manual_seed(0)
    CONTENDERS[contender](int(steps))
    took = [later - earlier for earlier, later in zip(times[WARM:-1], times[WARM + 1 :], strict=True)]
    print(BATCH * SIZES.context / statistics.median(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
