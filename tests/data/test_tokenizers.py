"""The tokenizer: any text comes back, within the vocabulary that was asked for."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from darkit.data import train_bpe
from darkit.data.tokenizers import END_OF_TEXT
from darkit.errors import DataError

TEXTS = ["the import statement is executed in two steps", "the steps of the statement", "另一个句子"]
TOKENIZER = train_bpe(TEXTS, vocab_size=300)


@given(st.text(max_size=60))
@example("")
@example(" two  spaces\n\tand\r\nlines ")
@example("é\u0301 \u202e 🧑‍🚀 \ufffd \x00")
def test_any_text_comes_back_as_it_was(text: str) -> None:
    encoded = TOKENIZER.encode(text)
    assert TOKENIZER.decode(encoded.ids) == text
    assert all(0 <= token < TOKENIZER.get_vocab_size() for token in encoded.ids)
    assert len(encoded.ids) <= len(text.encode())


def test_frequent_words_become_one_token() -> None:
    assert len(TOKENIZER.encode(" the").ids) == 1
    assert len(TOKENIZER.encode(" zyx").ids) > 1


@pytest.mark.parametrize("size", [257, 260, 300])
def test_the_vocabulary_has_at_most_the_size_that_was_asked_for(size: int) -> None:
    assert train_bpe(TEXTS * 50, vocab_size=size).get_vocab_size() == size


def test_the_special_tokens_are_tokens_of_their_own() -> None:
    tokenizer = train_bpe(TEXTS, vocab_size=270, special_tokens=("<a>", "<b>"))
    assert [tokenizer.token_to_id(token) for token in ("<a>", "<b>", END_OF_TEXT)] == [0, 1, None]
    assert tokenizer.encode("<b>").ids == [1]
    assert TOKENIZER.token_to_id(END_OF_TEXT) == 0


def test_training_again_on_the_same_text_gives_the_same_tokenizer() -> None:
    assert train_bpe(TEXTS, vocab_size=300).to_str() == TOKENIZER.to_str()


def test_a_saved_tokenizer_reads_back_the_same() -> None:
    again = Tokenizer.from_str(TOKENIZER.to_str())
    assert again.encode("the 另一个 steps").ids == TOKENIZER.encode("the 另一个 steps").ids


@pytest.mark.parametrize(
    ("size", "special", "fewest"), [(256, (END_OF_TEXT,), 257), (0, (), 256), (257, ("<a>", "<b>"), 258)]
)
def test_fewer_tokens_than_bytes_are_refused(size: int, special: tuple[str, ...], fewest: int) -> None:
    with pytest.raises(DataError, match=rf"^vocab_size must be at least {fewest} \(.*\), not {size}\.$"):
        train_bpe(TEXTS, vocab_size=size, special_tokens=special)
