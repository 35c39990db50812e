"""Text that a language model goes on with, piece by piece."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor, nn

from darkit.core.generate import stream_text
from darkit.errors import ConfigError
from tests.core.parts import Talker, TalkerConfig, byte_tokenizer, reciting


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


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), prompt=st.text(min_size=1, max_size=6), count=st.integers(1, 24))
def test_the_pieces_are_the_decoded_continuation_whatever_the_bytes(seed: int, prompt: str, count: int) -> None:
    plain = byte_tokenizer(256)
    chosen: list[int] = []

    class Noting(Talker):
        def forward(self, tokens: Tensor) -> Tensor:
            chosen[:] = [*chosen, int(tokens[0, -1])]
            return super().forward(tokens)

    model = Noting(TalkerConfig(plain.get_vocab_size()))
    nn.init.zeros_(model.table.weight)
    pieces = list(stream_text(model, plain, prompt, max_new_tokens=count, seed=seed))
    whole = plain.decode(plain.encode(prompt).ids + chosen[1:])  # but for the last token, which no call was given
    assert (plain.decode(plain.encode(prompt).ids) + "".join(pieces)).startswith(whole.rstrip("\ufffd"))
    assert all(pieces)
    assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])


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


def test_the_model_sees_no_more_than_its_context(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    model = even(tokenizer)
    list(stream_text(model, tokenizer, "a", max_new_tokens=40))
    assert model.longest == 16
    list(stream_text(model, tokenizer, "a", max_new_tokens=40, context_length=20))
    assert model.longest == 20
    assert caplog.records == []
    list(stream_text(model, tokenizer, "abcdefghij" * 9, max_new_tokens=1))
    assert "the model sees the last 16" in caplog.text


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
    with pytest.raises(ConfigError, match="has no token to go on from"):
        stream_text(even(tokenizer), tokenizer, "")
