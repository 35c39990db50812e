"""Masked text from a source: what is hidden stays the same in evaluation and changes in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from darkit.data import MaskedTokens, SentencePairs, masked_text, train_bpe
from darkit.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"line number {number} of {number * 7} lines in all" for number in range(40)))
    return path


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_the_hidden_tokens_are_the_texts_own(file: Path, kind: str) -> None:
    choice = masked_text(file, documents="line", kind=kind, vocab_size=300, context_length=64)
    assert isinstance(choice.train, MaskedTokens)
    lines = file.read_text().splitlines()
    for index in range(len(choice.train)):
        sample = choice.train[index]
        ids = torch.where(sample["labels"] == -100, sample["input_ids"], sample["labels"]).tolist()
        text = choice.tokenizer.decode(ids)
        assert text in lines
        assert choice.tokenizer.encode(text).ids == ids, "as the tokenizer itself encodes it"


def test_evaluation_hides_the_same_tokens_always(file: Path) -> None:
    one, two = (masked_text(file, documents="line", vocab_size=300, context_length=64, seed=2) for _ in range(2))
    for first, second in ((one.val[0], one.val[0]), (one.val[0], two.val[0])):
        assert all(torch.equal(first[name], second[name]) for name in first)
    labels = {tuple(one.train[0]["labels"].tolist()) for _ in range(20)}
    assert len(labels) > 1
    assert one.train.facts == two.train.facts
    assert one.train.facts["split"]["fingerprint"]


def test_pairs_are_pairs(file: Path) -> None:
    choice = masked_text(file, documents="line", pairs=True, vocab_size=300, context_length=32, whole_words=True)
    assert isinstance(choice.train, SentencePairs)
    assert isinstance(choice.val, SentencePairs)
    assert masked_text(file, documents="line", val_fraction=0, vocab_size=300).val is None


def test_a_tokenizer_without_a_mask_token_is_refused(file: Path) -> None:
    with pytest.raises(DataError, match=r"^The tokenizer has no mask token, which .* needs: add one of \[MASK\]"):
        masked_text(file, documents="line", tokenizer=train_bpe(["x"], 257))
