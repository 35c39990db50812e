"""Language models read with their cache, and without it the same."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from darkit.errors import BatchError, ConfigError, ModelError
from darkit.models.gpt import GPT, GPTConfig
from darkit.prediction.text.language import CachedReader, Reader, TransformersReader, make_reader

VOCABULARY = 40


def gpt(**settings: Any) -> GPT:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "context_length": 12,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_size": 16,
    }
    sizes["tie_embeddings"] = False
    model = GPT(GPTConfig(**(sizes | settings)))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.8)  # so that the likeliest tokens vary
    return model.eval()


class Counter(nn.Module):
    """A recurrent model: its state is the sum of all tokens, whatever came before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.config = SimpleNamespace(context_length=8)
        self.table = nn.Embedding(VOCABULARY, VOCABULARY)
        self.read = 0

    def make_cache(self, batch_size: int = 1) -> Any:
        return SimpleNamespace(limit=None, length=0, state=torch.zeros(batch_size, VOCABULARY))

    def forward(self, tokens: Tensor, *, cache: Any = None) -> Tensor:
        self.read += tokens.shape[1]
        states = self.table(tokens).cumsum(1)
        if cache is not None:
            states = states + cache.state[:, None]
            cache.state = states[:, -1]
            cache.length += tokens.shape[1]
        return states.sin()


def transformers_gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=12,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        tie_word_embeddings=False,
    )
    return transformers.GPT2LMHeadModel(config).eval()


def greedy(reader: Reader, prompt: Sequence[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(reader(ids).argmax()))
    return ids[len(prompt) :]


def by_hand(model: nn.Module, prompt: Sequence[int], count: int, limit: int | None) -> list[int]:
    """As one does it without darkit: the whole window each time."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            output = model(torch.tensor([ids[-limit:] if limit else ids]))
        ids.append(int(getattr(output, "logits", output)[0, -1].argmax()))
    return ids[len(prompt) :]


MODELS = {
    "gpt": (gpt, CachedReader, 12),
    "gpt with learned positions": (lambda: gpt(positions="learned", norm="layer"), CachedReader, 12),
    "gpt with grouped queries": (lambda: gpt(num_heads=4, num_kv_heads=2), CachedReader, 12),
    "recurrent": (Counter, CachedReader, None),
    "transformers": (transformers_gpt2, TransformersReader, 12),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length", [1, 5, 12, 20])
def test_with_the_cache_the_likeliest_tokens_are_those_without_it_also_beyond_the_context(
    name: str, length: int
) -> None:
    make, kind, limit = MODELS[name]
    model = make()
    prompt = torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    reader = make_reader(model)
    assert type(reader) is kind
    assert reader.limit == limit
    with_cache = greedy(reader, prompt, 30)
    assert with_cache == greedy(make_reader(model, use_cache=False), prompt, 30) == by_hand(model, prompt, 30, limit)
    assert len(set(with_cache)) > 2


@pytest.mark.parametrize("name", MODELS)
def test_a_shorter_context_is_taken_with_and_without_the_cache(name: str) -> None:
    make, _, _ = MODELS[name]
    model = make()
    wanted = by_hand(model, [1, 2, 3], 12, 6)
    assert greedy(make_reader(model, 6), [1, 2, 3], 12) == wanted
    assert greedy(make_reader(model, 6, use_cache=False), [1, 2, 3], 12) == wanted


@pytest.mark.parametrize("name", ["gpt", "transformers"])
def test_more_context_than_the_model_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="context_length must be at most 12"):
        make_reader(MODELS[name][0](), 13)


def test_a_recurrent_model_reads_each_token_once_and_its_context_has_no_end() -> None:
    model = Counter()
    greedy(make_reader(model), [1, 2, 3], 50)
    assert model.read == 3 + 49


def test_a_model_with_two_outputs_or_without_parameters_is_read() -> None:
    class Bare(nn.Module):
        def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
            return nn.functional.one_hot((tokens + 1) % VOCABULARY, VOCABULARY).float(), None

    assert greedy(make_reader(Bare()), [5], 3) == [6, 7, 8]


@pytest.mark.parametrize(
    "output", [torch.zeros(1, 4), torch.zeros(1, 1, 4), None, {"loss": torch.zeros(())}, torch.zeros(3, 3, 3)]
)
def test_what_is_no_language_model_is_told_so(output: Any) -> None:
    class Other(nn.Module):
        def forward(self, tokens: Tensor) -> Any:
            return output

    with pytest.raises(ModelError, match=r"returns logits \(batch, time, vocabulary\), but Other returned"):
        make_reader(Other())([1, 2])


def test_an_error_of_the_model_names_the_batch() -> None:
    with pytest.raises(BatchError, match=r"The model failed on int64\[1, 2\]: IndexError"):
        make_reader(gpt())([1, VOCABULARY])
