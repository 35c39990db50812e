"""Texts and what they are to become, as an encoder and a decoder take them."""

from __future__ import annotations

import pytest
import torch

from darkit.data import TextPairs, TokenRow, text_pairs, train_bpe
from darkit.errors import DataError

ROWS = [{"source": f"number {number}", "target": f"{number} rebmun"} for number in range(20)]


def test_the_decoder_sees_what_comes_before_each_label() -> None:
    data = TextPairs(TokenRow([[5, 6, 7], [8]]), TokenRow([[9, 10], [11, 12, 13, 14]]), 3, 4, end=1, start=2)
    first, second = data[0], data[1]
    assert (first["input_ids"].tolist(), second["input_ids"].tolist()) == ([5, 6, 1], [8, 1])
    assert (first["labels"].tolist(), second["labels"].tolist()) == ([9, 10, 1], [11, 12, 13, 1])
    assert second["decoder_input_ids"].tolist() == [2, 11, 12, 13]
    batch = data.collate_fn([first, second])
    assert list(batch) == ["input_ids", "attention_mask", "decoder_input_ids", "labels"]
    assert batch["labels"].tolist()[0] == [9, 10, 1, -100]
    assert batch["decoder_input_ids"].tolist()[0] == [2, 9, 10, 0]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert (data.vocabulary, data.context_length) == (15, 4)


def test_batches_may_have_a_fixed_length_of_both_texts() -> None:
    data = TextPairs(TokenRow([[5, 6]]), TokenRow([[9]]), 7, 4, end=1, start=2, fixed=True)
    shapes = {name: tuple(value.shape) for name, value in data.collate_fn([data[0]]).items()}
    assert shapes == {"input_ids": (1, 7), "attention_mask": (1, 7), "decoder_input_ids": (1, 4), "labels": (1, 4)}


def test_the_tokenizer_brings_both_texts_back() -> None:
    choice = text_pairs(ROWS, vocab_size=300, context_length=32)
    decode = choice.tokenizer.decode
    pairs = {(row["source"], row["target"]) for row in ROWS}
    found = set()
    for part in (choice.train, choice.val):
        for index in range(len(part)):
            sample = part[index]
            found.add((decode(sample["input_ids"].tolist()), decode(sample["labels"].tolist())))
            assert sample["decoder_input_ids"][0] == choice.tokenizer.token_to_id("[CLS]")
            assert torch.equal(sample["decoder_input_ids"][1:], sample["labels"][:-1])
    assert found == pairs


def test_a_tokenizer_of_ones_own_needs_an_end_and_starts_with_what_it_has() -> None:
    with pytest.raises(DataError, match=r"^The tokenizer has no end token, which sequence to sequence needs:"):
        text_pairs(ROWS, tokenizer=train_bpe(["x"], 257, ["[PAD]"]))
    padded = text_pairs(ROWS, tokenizer=train_bpe(["x"], 258, ["<|endoftext|>", "[PAD]"])).train
    assert padded[0]["decoder_input_ids"][0] == 1, "the padding token, as in T5"
    bare = text_pairs(ROWS, tokenizer=train_bpe(["x"], 257)).train
    assert bare[0]["decoder_input_ids"][0] == 0 == bare[0]["labels"][-1]


@pytest.mark.parametrize(
    ("targets", "length", "said"),
    [(1, 1, "A text must have 2 tokens at least, not 1."), (2, 5, "There are 1 sources, but 2 targets.")],
)
def test_what_does_not_fit_together_is_refused(targets: int, length: int, said: str) -> None:
    with pytest.raises(DataError) as refused:
        TextPairs(TokenRow([[5]]), TokenRow([[6]] * targets), length, 5, end=1, start=2)
    assert str(refused.value) == said
