"""The tokenizer: any text comes back, within the vocabulary that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import darkit
from darkit.core import Predicter
from darkit.data import load_tokenizer, train_bpe, train_tokenizer
from darkit.data.text.tokenizers import (
    END_OF_TEXT,
    KINDS,
    USES,
    encode_batch,
    needed_token,
    special_token,
    vocabulary_size,
)
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


MULTILINGUAL = [
    "The import statement is executed in two steps.\n\tfind a module,   and bind it",
    "另一个句子：今天天气很好，我们去公园吧！",
    "👩‍🚀🏳️‍🌈 café cafe\u0301 naïve ÅÅ",
    "مرحبا بالعالم \u202e שלום \u202c",
    "control \x07 \x1b[31m \x7f \u200b \ufeff end",
    "  leading, trailing  \r\n\r\n",
    "",
]


def special(kind: str) -> list[str]:
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if kind == "wordpiece" else [END_OF_TEXT]


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    return request.param, train_tokenizer(MULTILINGUAL * 3, request.param, 400)


def kept(tokenizer: Any, name: str) -> Any:
    """Export a tokenizer with a run, and find it again by the run's name."""
    model = torch.nn.Linear(2, 1)
    data = (torch.zeros(4, 2), torch.zeros(4, 1))
    options = {"max_step": 1, "device": "cpu", "tensorboard": False}
    darkit.fit(model, data, loss=F.mse_loss, tokenizer=tokenizer, name=name, **options)
    return Predicter.get_tokenizer(name)


def same(one: Any, other: Any) -> bool:
    """Return whether two tokenizers encode and decode a multilingual corpus alike."""
    rows = encode_batch(one, MULTILINGUAL)
    return (
        rows == encode_batch(other, MULTILINGUAL)
        and [one.decode(row) for row in rows] == [other.decode(row) for row in rows]
        and [special_token(one, use) for use in USES] == [special_token(other, use) for use in USES]
        and vocabulary_size(one) == vocabulary_size(other)
    )


def test_every_kind_comes_back_from_a_run_as_it_was(trained: tuple[str, Tokenizer]) -> None:
    kind, tokenizer = trained
    assert same(tokenizer, kept(tokenizer, "run"))
    for token in special(kind):
        assert tokenizer.token_to_id(token) is not None


def test_a_transformers_tokenizer_of_every_kind_comes_back_too(trained: tuple[str, Tokenizer]) -> None:
    kind, backend = trained
    names = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"} if kind == "wordpiece" else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special(kind)[-1], **names)
    again = kept(tokenizer, "run")
    assert isinstance(again, PreTrainedTokenizerFast)
    assert same(tokenizer, again)
    assert again.eos_token == tokenizer.eos_token


def test_the_path_of_a_tokenizer_comes_back_too(trained: tuple[str, Tokenizer], tmp_path: Path) -> None:
    _, tokenizer = trained
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert same(tokenizer, kept(tmp_path / "tokenizer.json", "run"))
    for where in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        assert same(tokenizer, load_tokenizer(where))
    assert load_tokenizer(tokenizer) is tokenizer


@pytest.mark.parametrize("kind", ["bpe", "unigram", "characters"])
def test_kinds_without_loss_decode_what_they_have_seen_to_the_same(kind: str) -> None:
    tokenizer = train_tokenizer(MULTILINGUAL, kind, 400)
    assert [tokenizer.decode(row) for row in encode_batch(tokenizer, MULTILINGUAL)] == MULTILINGUAL


@given(st.text(max_size=60))
def test_any_text_comes_back_from_bytes_of_a_unigram_model_too(text: str) -> None:
    assert UNIGRAM.decode(encode_batch(UNIGRAM, [text])[0]) == text


UNIGRAM = train_tokenizer(TEXTS, "unigram", 280)


def test_encoding_adds_cuts_and_pads_nothing_whatever_the_tokenizer_is_set_to() -> None:
    tokenizer = train_tokenizer(MULTILINGUAL, "wordpiece", 400)
    plain = encode_batch(tokenizer, MULTILINGUAL)
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    assert encode_batch(tokenizer, MULTILINGUAL) == plain
    assert tokenizer.truncation is not None, "it is left as it was"
    assert tokenizer.encode("the").ids[0] == tokenizer.token_to_id("[CLS]")


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_found_by_their_use(kind: str) -> None:
    tokenizer = train_tokenizer(TEXTS, kind, 300, special_tokens=["<pad>", "</s>", "<mask>"])
    assert [special_token(tokenizer, use) for use in ("pad", "end", "mask", "cls")] == [0, 1, 2, None]
    with pytest.raises(DataError) as refused:
        needed_token(tokenizer, "cls", "masked text")
    assert str(refused.value) == (
        "The tokenizer has no cls token, which masked text needs: add one of [CLS], <cls>, <s> to its special tokens."
    )


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nope.json", r"There is no tokenizer file nope\.json\."),
        ("folder", "The folder folder has no tokenizer.json."),
        ("bad.json", r"The file bad\.json is not a valid tokenizer file: "),
        (7, "A tokenizer must be a tokenizers.Tokenizer, .* not int"),
        ("own/tokenizer", "Hugging Face hub's own/tokenizer is not a valid tokenizer: "),
    ],
)
def test_what_is_no_tokenizer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    Path("folder").mkdir()
    Path("bad.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=said):
        load_tokenizer(where)


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        ("bpm", 300, "Unknown kind of tokenizer 'bpm'. Did you mean 'bpe'?"),
        ("wordpiece", 5, r"vocab_size must be at least 6 \(1 character and the special tokens\), not 5"),
        ("characters", 2, r"vocab_size must be at least 3 \(1 character and the special tokens\), not 2"),
        ("unigram", 256, r"vocab_size must be at least 257 \(256 bytes and the special tokens\), not 256"),
    ],
)
def test_a_kind_or_size_that_cannot_be_is_refused(kind: str, size: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        train_tokenizer(TEXTS, kind, size)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "characters"])
def test_the_same_texts_give_the_same_ids_each_time(kind: str) -> None:
    texts = [f"{word} {other}s, {word}ing" for word in ("read", "call", "open") for other in ("file", "loop", "é中")]
    first, *others = (train_tokenizer(iter(texts), kind, 300).to_str() for _ in range(4))
    assert others == [first] * 3
