"""Special tokens of any tokenizer, and where words begin."""

from __future__ import annotations

import pytest
import transformers
from tokenizers import Tokenizer

from darkit.data.text.specials import sentence_endings, special_ids, specials_of, word_beginnings
from darkit.data.text.tokenizers import KINDS, train_tokenizer
from darkit.errors import DataError

BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXTS = ["the unbelievable unbelievers believe in tokenizers, tokens and token-ness.", "other things\nwith lines"] * 3


def trained(kind: str, special: tuple[str, ...] = BERT) -> Tokenizer:
    return train_tokenizer(TEXTS, kind, 340, special)


@pytest.mark.parametrize("kind", KINDS)
def test_the_special_tokens_of_every_kind_are_found(kind: str) -> None:
    tokenizer = trained(kind)
    found = specials_of(tokenizer)
    names = [tokenizer.id_to_token(token) for token in (found.pad, found.cls, found.sep, found.mask)]  # type: ignore[arg-type]
    assert names == ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    assert {tokenizer.id_to_token(token) for token in found.ids} == set(BERT)
    assert found.vocabulary == tokenizer.get_vocab_size()


def test_a_transformers_tokenizer_is_asked_too() -> None:
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=trained("bpe"), mask_token="[MASK]")
    assert special_ids(wrapped) == special_ids(trained("bpe"))
    assert specials_of(wrapped).mask == wrapped.mask_token_id


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    with pytest.raises(DataError, match=r"^The tokenizer has no mask token, which"):
        specials_of(trained("bpe", ("<|endoftext|>",)))


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_the_words_that_are_told_are_those_of_the_text(kind: str) -> None:
    tokenizer = trained(kind)
    begins = word_beginnings(tokenizer)
    text = "the unbelievable tokenizers believe in tokenthings"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    words: list[list[int]] = []
    for token in ids:
        if begins[token] or not words:
            words.append([])
        words[-1].append(token)
    assert [tokenizer.decode(word).strip() for word in words] == text.split()
    assert len(ids) > len(words)
    assert all(begins[list(special_ids(tokenizer))])


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_end_with_their_marks_and_lines(kind: str) -> None:
    tokenizer = trained(kind)
    ends = sentence_endings(tokenizer)
    ids = tokenizer.encode("the believers. other tokens, and\nlines", add_special_tokens=False).ids
    pieces, start = [], 0
    for place, token in enumerate(ids, 1):
        if ends[token] or place == len(ids):
            pieces.append(tokenizer.decode(ids[start:place]).strip())
            start = place
    lines = (
        ["other tokens, and", "lines"] if kind != "wordpiece" else ["other tokens, and lines"]
    )  # which has no line ends
    assert pieces == ["the believers.", *lines]
    assert not ends[list(special_ids(tokenizer))].any()


def test_characters_tell_no_words() -> None:
    with pytest.raises(DataError, match=r"^Whole words can be masked only with a tokenizer that marks the beginnings"):
        word_beginnings(trained("characters"))
