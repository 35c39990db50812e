"""Several texts that are continued together: each as alone, whatever the others do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from darkit.errors import BatchError, ModelError
from darkit.models.gpt import GPT, GPTConfig
from darkit.models.spikegpt import SpikeGPT, SpikeGPTConfig
from darkit.prediction.text.generate import stream_text, stream_texts
from tests.core.parts import Talker, TalkerConfig, byte_tokenizer

PROMPTS = ["a", "the sea sails", "the sea", "b", "over the wind and the sea", "a"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


def varied(model: nn.Module) -> nn.Module:
    """Give a model weights with which the likeliest tokens vary."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


def gpt(size: int, **settings: Any) -> nn.Module:
    return varied(GPT(GPTConfig(size, 32, 1, 2, hidden_size=16, tie_embeddings=False, **settings)))


def gpt2(size: int) -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=size, n_positions=32, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False, eos_token_id=None
    )
    return varied(transformers.GPT2LMHeadModel(config))


MODELS = {
    "gpt": gpt,
    "gpt with learned positions": lambda size: gpt(size, positions="learned"),
    "spikegpt": lambda size: varied(SpikeGPT(SpikeGPTConfig(size, 32, 1, 16))),
    "transformers": gpt2,
    "without a cache": lambda size: varied(Talker(TalkerConfig(size))),
}


class Calls:
    """The shapes with which a model is called."""

    def __init__(self, model: nn.Module) -> None:
        self.shapes: list[tuple[int, ...]] = []
        model.register_forward_pre_hook(lambda module, given: self.shapes.append(tuple(given[0].shape)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 3, "top_p": 0.9}], ids=["likeliest", "drawn"])
def test_each_goes_on_as_alone_beyond_the_context_too(
    tokenizer: Tokenizer, name: str, settings: dict[str, Any]
) -> None:
    model = MODELS[name](tokenizer.get_vocab_size())
    settings = settings | {"max_new_tokens": 40, "stop": ["q"]}
    alone = ["".join(stream_text(model, tokenizer, prompt, **settings)) for prompt in PROMPTS]
    calls = Calls(model)
    together = ["".join(stream) for stream in stream_texts(model, tokenizer, PROMPTS, **settings)]
    assert together == alone
    assert len(set(alone)) > 2
    cached = name != "without a cache"
    assert calls.shapes[0] == ((len(PROMPTS), 1) if cached else (1, 1)), "the end of the shortest comes first"
    assert not cached or len(calls.shapes) <= 25 + 40


def test_lengths_that_differ_by_more_than_what_is_generated_are_continued_apart(tokenizer: Tokenizer) -> None:
    model = gpt(tokenizer.get_vocab_size())
    calls = Calls(model)
    for stream in stream_texts(model, tokenizer, ["a", "the sea sails over", "b"], max_new_tokens=3, seed=0):
        list(stream)
    assert calls.shapes[:3] == [(2, 1)] * 3
    assert calls.shapes[3] == (1, len(tokenizer.encode("the sea sails over").ids))


def test_a_text_that_ended_gets_no_further_token_while_others_are_read(tokenizer: Tokenizer) -> None:
    model = gpt(tokenizer.get_vocab_size())
    settings: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0}
    prompts = ["the sea sails", "a"]  # the second ends first and is read last
    alone = ["".join(stream_text(model, tokenizer, prompt, **settings)) for prompt in prompts]
    assert ["".join(stream) for stream in stream_texts(model, tokenizer, prompts, **settings)] == alone


def test_no_more_than_sixteen_are_continued_together(tokenizer: Tokenizer) -> None:
    model = gpt(tokenizer.get_vocab_size())
    calls = Calls(model)
    streams = stream_texts(model, tokenizer, ["a"] * 20, max_new_tokens=2, seed=0)
    assert not calls.shapes, "nothing is computed before a text is asked for"
    for stream in streams:
        list(stream)
    assert calls.shapes == [(16, 1)] * 2 + [(4, 1)] * 2


def test_a_text_that_nobody_reads_to_its_end_holds_up_no_other(tokenizer: Tokenizer) -> None:
    model = gpt(tokenizer.get_vocab_size())
    settings: dict[str, Any] = {"max_new_tokens": 60, "seed": 1}
    alone = "".join(stream_text(model, tokenizer, "the sea", **settings))
    first, second = stream_texts(model, tokenizer, ["a", "the sea"], **settings)
    next(first)
    calls = Calls(model)
    first.close()  # type: ignore[attr-defined]  # of a generator
    assert "".join(second) == alone
    assert calls.shapes[-1][0] == 1, "past the context, where no cache is shared, a closed text costs nothing"


def test_texts_may_be_read_by_several_threads(tokenizer: Tokenizer) -> None:
    model = gpt(tokenizer.get_vocab_size())
    settings: dict[str, Any] = {"max_new_tokens": 60, "seed": 1}
    alone = ["".join(stream_text(model, tokenizer, prompt, **settings)) for prompt in PROMPTS]
    found = dict.fromkeys(range(len(PROMPTS)), "")

    def read(index: int, stream: Iterator[str]) -> None:
        found[index] = "".join(stream)

    streams = stream_texts(model, tokenizer, PROMPTS, **settings)
    threads = [threading.Thread(target=read, args=pair) for pair in enumerate(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == alone


def test_logits_that_are_not_finite_end_their_own_text(tokenizer: Tokenizer) -> None:
    model = gpt(tokenizer.get_vocab_size())
    settings: dict[str, Any] = {"max_new_tokens": 5, "temperature": 0}
    alone = "".join(stream_text(model, tokenizer, "b", **settings))

    def spoil(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        output[0] = torch.nan

    model.register_forward_hook(spoil)
    first, second = stream_texts(model, tokenizer, ["a", "b"], **settings)
    assert "".join(second) == alone
    with pytest.raises(ModelError, match="not finite"):
        list(first)


def test_an_error_of_the_model_is_told_to_all(tokenizer: Tokenizer) -> None:
    model = gpt(tokenizer.get_vocab_size())

    def fail(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise RuntimeError("broken")

    streams = stream_texts(model, tokenizer, ["a", "b"], max_new_tokens=5)
    broken = model.register_forward_pre_hook(fail)
    with pytest.raises(BatchError, match="broken"):
        next(streams[0])
    broken.remove()
    with pytest.raises(BatchError, match="broken"):
        next(streams[1])
