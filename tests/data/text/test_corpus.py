"""Text in memory: what is read, split and encoded, and by which tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkit.data.sources.splits import TRAIN, VAL
from darkit.data.text.corpus import encode_parts, encode_texts, find_tokenizer, read_parts, texts_of
from darkit.data.text.tokenizers import train_bpe
from darkit.errors import DataError

TEXTS = [f"line {number} of the text" for number in range(30)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join([*TEXTS, TEXTS[3]]))
    return path


def test_all_texts_are_in_one_part_each_and_encoded_in_their_order(file: Path) -> None:
    parts = read_parts(file, ("text",), val_fraction=0.2, val_files=None, seed=1, documents="line")
    tokenizer = find_tokenizer(None, lambda: texts_of(parts, TRAIN, "text"), kind="bpe", vocab_size=280)
    train, val = encode_parts(parts, tokenizer, "text")
    assert val is not None
    found = [[tokenizer.decode(row.document(index)) for index in range(row.documents)] for row in (train, val)]
    assert sorted(found[0] + found[1]) == sorted([*TEXTS, TEXTS[3]])
    assert not set(found[0]) & set(found[1])
    assert found == [list(texts_of(parts, part, "text")) for part in (TRAIN, VAL)]
    assert parts.facts["split"]["train"] == len(found[0])
    assert parts.facts["files"] == [str(file)]


def test_without_a_fraction_there_is_no_second_part(file: Path) -> None:
    parts = read_parts(file, ("text",), val_fraction=0, val_files=None, seed=1, documents="line")
    assert encode_parts(parts, train_bpe(["x"], 257), "text")[1] is None


def test_what_is_encoded_has_the_ending_behind_and_the_tokenizers_vocabulary() -> None:
    row = encode_texts(train_bpe(["x"], 257), ["ab", ""], ending=[0])
    assert [row.document(index)[-1] for index in range(2)] == [0, 0]
    assert (row.documents, len(row), row.vocabulary) == (2, 4, 257)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_tokenizer_that_is_trained_puts_its_marks_around_a_text(kind: str) -> None:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    tokenizer = find_tokenizer(None, lambda: TEXTS, kind=kind, vocab_size=300, special_tokens=special)
    tokens = tokenizer.encode("the text").tokens
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert find_tokenizer(tokenizer, list, kind="none", vocab_size=0) is tokenizer


def test_data_that_is_nowhere_is_refused() -> None:
    with pytest.raises(DataError, match=r"^data\.path must say where the data is: a file, a folder or a pattern\.$"):
        read_parts(None, ("text",), val_fraction=0.1, val_files=None, seed=0)
