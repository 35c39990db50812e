"""Text that a language model goes on with, piece by piece."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from torch import Tensor, nn

from darkit.data.text.tokenizers import train_tokenizer
from darkit.errors import ConfigError
from darkit.models.gpt import GPT, GPTConfig
from darkit.prediction.text.generate import encode_prompt, stream_text
from tests.core.parts import STORY, Talker, TalkerConfig, byte_tokenizer, reciting


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


def even(tokenizer: Tokenizer) -> Talker:
    """A model for which every token is as likely."""
    model = Talker(TalkerConfig(tokenizer.get_vocab_size()))
    nn.init.zeros_(model.table.weight)
    return model


def test_the_likeliest_continuation_is_recited(tokenizer: Tokenizer) -> None:
    text = "sea wind"
    count = len(tokenizer.encode(text).ids)
    pieces = list(stream_text(reciting(tokenizer, text), tokenizer, "s", max_new_tokens=count - 1, temperature=0))
    assert "s" + "".join(pieces) == text
    assert len(pieces) > 1


@pytest.mark.parametrize("text", ["a😀b", "é海!", "海"])
def test_characters_of_several_bytes_come_whole(tokenizer: Tokenizer, text: str) -> None:
    plain = byte_tokenizer(256)  # nothing but bytes: every character but ASCII is several tokens
    count = len(plain.encode(text).ids)
    model = reciting(plain, "." + text)
    pieces = list(stream_text(model, plain, ".", max_new_tokens=count, temperature=0))
    assert pieces == list(text)


def test_a_character_that_the_end_cuts_is_still_told(tokenizer: Tokenizer) -> None:
    plain = byte_tokenizer(256)
    pieces = list(stream_text(reciting(plain, ".a😀"), plain, ".", max_new_tokens=3, temperature=0))
    assert pieces == ["a", "\ufffd"]


@given(seed=st.integers(0, 2**32), prompt=st.text(min_size=1, max_size=6), count=st.integers(1, 24))
def test_the_pieces_are_the_decoded_continuation_whatever_the_bytes(seed: int, prompt: str, count: int) -> None:
    plain = byte_tokenizer(256)
    chosen: list[int] = []

    class Noting(Talker):
        def forward(self, tokens: Tensor) -> Tensor:
            chosen[:] = [*chosen, int(tokens[0, -1])]
            return super().forward(tokens)

    model = Noting(TalkerConfig(plain.get_vocab_size(), context_length=100))
    nn.init.zeros_(model.table.weight)
    ids = plain.encode(prompt).ids
    list(stream_text(model, plain, prompt, max_new_tokens=count + 1, seed=seed))  # the last token, no call is given
    pieces = list(stream_text(model, plain, prompt, max_new_tokens=count, seed=seed))
    whole = plain.decode(ids + chosen[1 : count + 1])
    assert plain.decode(ids) + "".join(pieces) == whole
    assert all(pieces)


def test_a_seed_makes_the_same_text_again_and_none_makes_another(tokenizer: Tokenizer) -> None:
    def told(seed: int | None) -> str:
        return "".join(stream_text(even(tokenizer), tokenizer, "a", max_new_tokens=30, seed=seed))

    assert told(1) == told(1) != told(2)
    assert told(None) != told(None)


def test_the_choice_leaves_the_global_generator_alone(tokenizer: Tokenizer) -> None:
    model = even(tokenizer)
    before = torch.get_rng_state()
    list(stream_text(model, tokenizer, "a", max_new_tokens=5))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("top_k", [1, 3])
def test_top_k_takes_no_more_than_k_tokens_even_when_more_are_as_likely(tokenizer: Tokenizer, top_k: int) -> None:
    class Noting(Talker):
        seen: Counter[int] = Counter()  # noqa: RUF012

        def forward(self, tokens: Tensor) -> Tensor:
            self.seen[int(tokens[0, -1])] += 1
            return super().forward(tokens)

    model = Noting(TalkerConfig(tokenizer.get_vocab_size()))
    nn.init.zeros_(model.table.weight)
    Noting.seen.clear()
    list(stream_text(model, tokenizer, "a", max_new_tokens=60, top_k=top_k, seed=0))
    del Noting.seen[tokenizer.encode("a").ids[0]]
    assert len(Noting.seen) <= top_k
    assert top_k == 1 or len(Noting.seen) > 1


def test_top_k_beyond_the_vocabulary_takes_all(tokenizer: Tokenizer) -> None:
    one, other = (
        "".join(stream_text(even(tokenizer), tokenizer, "a", max_new_tokens=9, seed=0, top_k=top_k))
        for top_k in (None, 10_000)
    )
    assert one == other


def test_a_low_temperature_takes_the_likeliest_and_a_high_one_does_not(tokenizer: Tokenizer) -> None:
    model = even(tokenizer)
    with torch.no_grad():
        model.table.weight[:, 5] = 1.0
    likeliest = tokenizer.decode([5]) * 20

    def told(temperature: float) -> str:
        return "".join(stream_text(model, tokenizer, "a", max_new_tokens=20, temperature=temperature, seed=0))

    assert told(0) == told(1e-3) == likeliest
    assert told(100.0) != likeliest


def test_the_model_sees_no_more_than_its_context(tokenizer: Tokenizer) -> None:
    model = even(tokenizer)
    list(stream_text(model, tokenizer, "a", max_new_tokens=40))
    assert model.longest == 16
    list(stream_text(model, tokenizer, "a", max_new_tokens=40, context_length=20))
    assert model.longest == 20


@pytest.mark.parametrize("name", ["context_length", "ctx_len"])
def test_a_prompt_longer_than_the_context_loses_its_beginning_with_a_warning(tokenizer: Tokenizer, name: str) -> None:
    model = even(tokenizer)
    prompt = "abcdefghij" * 9
    with pytest.warns(UserWarning, match="has 72 tokens; the model sees the last 16"):
        list(stream_text(model, tokenizer, prompt, max_new_tokens=1))
    with pytest.warns(UserWarning, match="the model sees the last 4"):
        list(stream_text(model, tokenizer, prompt, max_new_tokens=1, **{name: 4}))
    recited = reciting(tokenizer, "sea wind")
    with pytest.warns(UserWarning, match="the last 1"):
        assert "".join(stream_text(recited, tokenizer, "zzs", temperature=0, max_new_tokens=9, **{name: 1})).startswith(
            "ea"
        )


def test_two_words_for_the_context_must_agree(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"context_length \(4\) and ctx_len \(5\) mean the same"):
        stream_text(even(tokenizer), tokenizer, "a", context_length=4, ctx_len=5)
    list(stream_text(even(tokenizer), tokenizer, "a", context_length=4, ctx_len=4, max_new_tokens=1))


@pytest.mark.parametrize("stop", ["wi", " w", "a wi", "nd"])
def test_a_stop_ends_the_text_before_it_however_its_tokens_are_cut(tokenizer: Tokenizer, stop: str) -> None:
    text = "sea wind"
    pieces = stream_text(reciting(tokenizer, text), tokenizer, "s", temperature=0, stop=["never there", stop])
    assert "s" + "".join(pieces) == text[: text.index(stop)]


def test_what_only_began_like_a_stop_is_told_at_the_end(tokenizer: Tokenizer) -> None:
    text = "sea wind"
    count = len(tokenizer.encode(text).ids) - 1
    model = reciting(tokenizer, text)
    pieces = stream_text(model, tokenizer, "s", max_new_tokens=count, temperature=0, stop="indeed")
    assert "s" + "".join(pieces) == text


def test_several_prompts_go_on_as_each_does_alone(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.get_vocab_size(), context_length=16, num_layers=1, num_heads=2, hidden_size=16))
    prompts = ["a", "the sea", "a", "sails over"]
    settings: dict[str, Any] = {"max_new_tokens": 30, "seed": 5, "top_p": 0.9}
    alone = ["".join(stream_text(model, tokenizer, prompt, **settings)) for prompt in prompts]
    assert alone[0] == alone[2] != alone[1]
    streams = [stream_text(model, tokenizer, prompt, **settings) for prompt in prompts]
    in_turns = list(zip_longest(*streams, fillvalue=""))
    assert ["".join(pieces) for pieces in zip(*in_turns, strict=True)] == alone


def test_a_model_with_a_cache_tells_the_same_with_and_without_it_beyond_its_context(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.get_vocab_size(), context_length=16, num_layers=1, num_heads=2, hidden_size=16))
    for settings in ({"temperature": 0}, {"seed": 1}):
        first, second = (
            list(stream_text(model, tokenizer, "the sea", max_new_tokens=40, use_cache=use_cache, **settings))
            for use_cache in (True, False)
        )
        assert first == second


def test_a_word_piece_tokenizer_keeps_spaces_and_adds_no_special_token_to_a_prompt() -> None:
    words = train_tokenizer([STORY], "wordpiece", 120)
    text = "the ship sails over"
    ids = words.encode(text, add_special_tokens=False).ids
    prompt, rest = words.decode(ids[:1]), words.decode(ids)[len(words.decode(ids[:1])) :]
    model = Talker(TalkerConfig(words.get_vocab_size()))
    with torch.no_grad():
        model.table.weight.zero_()
        for token, following in zip(ids, [*ids[1:], words.token_to_id("[SEP]")], strict=True):
            model.table.weight[token, following] = 50.0
    assert "".join(stream_text(model, words, prompt, temperature=0)) == rest


def test_the_token_that_a_text_begins_with_is_given_where_the_tokenizer_says_so() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["<s>"])
    first = tokenizer.token_to_id("<s>")
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    assert encode_prompt(plain, "sea") == tokenizer.encode("sea").ids
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    assert encode_prompt(fast, "sea") == [first, *plain.encode("sea")]
    assert encode_prompt(fast, "<s>sea") == [first, *plain.encode("sea")]
    assert encode_prompt(fast, "") == []


def test_a_token_that_a_transformers_model_names_as_its_end_ends_it_too() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["<|eot|>"])
    end = tokenizer.token_to_id("<|eot|>")
    model = Talker(TalkerConfig(tokenizer.get_vocab_size()))
    with torch.no_grad():
        model.table.weight.zero_()
        model.table.weight[:, end] = 50.0
    assert model(torch.tensor([[1]])).argmax() == end
    model.generation_config = SimpleNamespace(eos_token_id=[7, end])  # type: ignore[assignment]
    calls = model.longest
    assert list(stream_text(model, tokenizer, "a", max_new_tokens=5, temperature=0)) == []
    assert model.longest == calls


@pytest.mark.parametrize("kind", ["tensor", "attribute", "mapping", "tuple"])
def test_logits_are_found_in_what_a_model_returns(tokenizer: Tokenizer, kind: str) -> None:
    inner = reciting(tokenizer, "sea wind")

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, tokens: Tensor) -> Any:
            logits = self.inner(tokens)
            carrier = type("Carrier", (), {"logits": logits})()
            return {
                "tensor": logits,
                "attribute": carrier,
                "mapping": {"other": 0, "logits": logits},
                "tuple": (logits, None),
            }[kind]

    pieces = stream_text(Wrapped(), tokenizer, "s", max_new_tokens=50, temperature=0)
    assert "".join(pieces).startswith("ea wind")


def test_a_token_that_means_the_end_ends_it() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    end = tokenizer.token_to_id("<|endoftext|>")
    model = Talker(TalkerConfig(tokenizer.get_vocab_size()))
    with torch.no_grad():
        model.table.weight.zero_()
        model.table.weight[:, end] = 50.0
    assert list(stream_text(model, tokenizer, "a", max_new_tokens=5, temperature=0)) == []


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -0.1}, {"top_k": 0}, {"context_length": 0}, {"max_new_tokens": -1}]
)
def test_settings_out_of_range_are_refused_at_the_call(tokenizer: Tokenizer, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        stream_text(even(tokenizer), tokenizer, "a", **wrong)


def test_a_prompt_without_a_token_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="has no tokens"):
        stream_text(even(tokenizer), tokenizer, "")
