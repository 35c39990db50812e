"""Tokens that become text one by one, and strings that end it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from darkit.data.text.tokenizers import train_tokenizer
from darkit.prediction.text.decoding import Decoder, Stops, decode_function
from tests.core.parts import STORY, byte_tokenizer

KINDS = ("bytes", "bpe", "wordpiece", "unigram", "characters", "metaspace", "suffix", "fallback")


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    if kind == "bytes":
        return byte_tokenizer(256)
    if kind == "metaspace":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.train_from_iterator(
            [STORY], trainers.BpeTrainer(vocab_size=150, special_tokens=["[UNK]"], show_progress=False)
        )
        return tokenizer
    if kind == "suffix":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.decoder = decoders.BPEDecoder()
        trainer = trainers.BpeTrainer(
            vocab_size=150, special_tokens=["[UNK]"], end_of_word_suffix="</w>", show_progress=False
        )
        tokenizer.train_from_iterator([STORY], trainer)
        return tokenizer
    if kind == "fallback":  # as Llama's
        words = ["▁", "▁the", "▁sea", "s", "e", "a", "!"]
        vocabulary = {word: number for number, word in enumerate([*words, *(f"<0x{byte:02X}>" for byte in range(256))])}
        tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        return tokenizer
    return train_tokenizer([STORY], kind, 320)


def pieces(tokenizer: Any, prompt: list[int], ids: list[int]) -> list[str]:
    decoder = Decoder(tokenizer, prompt)
    return [*map(decoder.add, ids), decoder.rest()]


def whole(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> str:
    """What the tokenizer makes of all tokens, without what it makes of the prompt."""
    text, before = tokenizer.decode([*prompt, *ids]), tokenizer.decode(prompt)
    return text[len(before) :]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fallback"])
@given(data=st.data())
def test_the_pieces_are_what_the_tokenizer_makes_of_all_tokens(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    ids = st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=60)
    prompt = tokenizer.encode(
        data.draw(st.sampled_from(["the sea", "海", "a ", "sea, 😀", "x"])), add_special_tokens=False
    )
    tokens = data.draw(ids)
    assert "".join(pieces(tokenizer, prompt.ids, tokens)) == whole(tokenizer, prompt.ids, tokens)


@given(text=st.lists(st.sampled_from([" the", " sea", " ", "s", "e", "!", "海", "😀", "é", "\n"])), first=st.booleans())
def test_bytes_that_stand_for_characters_come_as_characters(text: list[str], first: bool) -> None:
    tokenizer = tokenizer_of("fallback")
    vocabulary = tokenizer.get_vocab()
    ids = []
    for part in text:
        known = part.replace(" ", "▁")
        ids += [vocabulary[known]] if known in vocabulary else [vocabulary[f"<0x{byte:02X}>"] for byte in part.encode()]
    prompt = [vocabulary["▁the"], *([vocabulary["<0xC3>"], vocabulary["<0xA9>"]] if first else [])]
    found = pieces(tokenizer, prompt, ids)
    assert "".join(found) == whole(tokenizer, prompt, ids) == "".join(text)
    assert not any("\ufffd" in piece for piece in found)


def test_a_character_that_was_told_is_not_taken_back_by_a_byte_that_is_none() -> None:
    tokenizer = tokenizer_of("fallback")
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[f"<0x{byte:02X}>"] for byte in "海".encode() + b"\xe6"] + [vocabulary["s"]]
    assert "".join(pieces(tokenizer, [vocabulary["▁the"]], ids)) == "海\ufffds"


def test_spaces_between_words_are_kept_and_special_tokens_say_nothing() -> None:
    for kind in ("wordpiece", "metaspace", "suffix", "unigram", "bpe"):
        tokenizer = tokenizer_of(kind)
        ids = tokenizer.encode("the ship sails over the sea", add_special_tokens=False).ids
        text = "".join(pieces(tokenizer, ids[:1], ids[1:]))
        assert tokenizer.decode(ids[:1]) + text == "the ship sails over the sea"
    tokenizer = tokenizer_of("wordpiece")
    special = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[PAD]")]
    ids = tokenizer.encode("the sea", add_special_tokens=False).ids
    mixed = [part for token in ids for part in (*special, token)]
    assert "".join(pieces(tokenizer, [special[0]], mixed)) == tokenizer.decode(ids)


@pytest.mark.parametrize("silent", ["bytes", "specials"])
def test_a_token_costs_the_same_however_long_the_text_and_even_when_nothing_can_be_told(silent: str) -> None:
    tokenizer = byte_tokenizer(256)
    tokenizer.add_special_tokens([AddedToken("[X]", special=True)])
    longest = 0

    class Counting:
        """Counts how many tokens are decoded together."""

        all_special_ids = (tokenizer.token_to_id("[X]"),)

        def decode(self, ids: list[int], **settings: Any) -> str:
            nonlocal longest
            longest = max(longest, len(ids))
            return tokenizer.decode(ids)

    broken = tokenizer.encode("海").ids[0]
    endless = {"bytes": [broken] * 500, "specials": [tokenizer.token_to_id("[X]")] * 500}[silent]
    prompt, ids = tokenizer.encode(STORY).ids, [*endless, *tokenizer.encode(STORY).ids]
    assert "".join(pieces(Counting(), prompt, ids)) == whole(tokenizer, prompt, ids)
    assert longest <= 40


def test_a_transformers_tokenizer_is_decoded_without_special_tokens_and_without_tidying() -> None:
    backend = tokenizer_of("wordpiece")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", clean_up_tokenization_spaces=True
    )
    ids = backend.encode("the sea , is wide .").ids
    assert decode_function(fast)(ids) == backend.decode(ids)


# Stops


def shown(stops: list[str], parts: list[str]) -> str:
    found = Stops(stops)
    text = ""
    for part in parts:
        text += found.add(part)
        assert not any(stop in text for stop in stops)
        if found.reached:
            return text
    return text + found.rest()


@given(
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    parts=st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=12),
)
def test_a_text_ends_before_the_first_stop_in_however_many_pieces_it_comes(stops: list[str], parts: list[str]) -> None:
    text = "".join(parts)
    places = [text.find(stop) for stop in stops if stop in text]
    found = shown(stops, parts)
    if places:
        assert text.startswith(found)
        assert not any(stop in found for stop in stops)
        assert any(text[len(found) :].startswith(stop) for stop in stops)
    else:
        assert found == text


@pytest.mark.parametrize(
    ("parts", "told"), [(["a", "b"], ["a", "b"]), (["a\n", "b"], ["a", "\nb"]), (["a\n", "\n", "b"], ["a", ""])]
)
def test_only_what_may_be_the_beginning_of_a_stop_is_held_back(parts: list[str], told: list[str]) -> None:
    stops = Stops(["\n\n"])
    add: Callable[[str], str] = stops.add
    assert [add(part) for part in parts[: len(told)]] == told
