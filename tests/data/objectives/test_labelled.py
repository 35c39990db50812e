"""Texts with labels: cut, marked and padded, with names for what is predicted."""

from __future__ import annotations

import pytest
import torch

from darkit.data import LabelledTexts, TokenRow, labelled_text
from darkit.data.objectives.labels import classification_loss, regression_loss
from darkit.errors import DataError

ROWS = [{"text": f"word {number} of many words", "label": ["no", "yes"][number % 2]} for number in range(20)]


def test_samples_are_marked_and_cut_and_the_batch_is_padded() -> None:
    data = LabelledTexts(TokenRow([[5, 6, 7, 8], [9], []], 10), torch.tensor([1, 0, 1]), 5, before=[1], behind=[2])
    assert [data[index]["input_ids"].tolist() for index in range(3)] == [[1, 5, 6, 7, 2], [1, 9, 2], [1, 2]]
    batch = data.collate_fn([data[0], data[1]])
    assert list(batch) == ["input_ids", "attention_mask", "labels"], "the labels last, for a loss of outputs and target"
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert (data.vocabulary, data.context_length) == (10, 5)
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_sample_is_what_the_tokenizer_makes_of_the_text(kind: str) -> None:
    choice = labelled_text(ROWS, kind=kind, vocab_size=300, context_length=64)
    texts = [row["text"] for row in ROWS]
    for part in (choice.train, choice.val):
        for index in range(len(part)):
            sample = part[index]
            text = choice.tokenizer.decode(sample["input_ids"].tolist())
            assert sample["input_ids"].tolist() == choice.tokenizer.encode(text).ids
            assert ROWS[texts.index(text)]["label"] == choice.train.facts["label_names"][sample["labels"]]
    assert choice.loss is classification_loss
    assert len(choice.train) + len(choice.val) == 20


def test_a_text_is_in_one_part_whatever_labels_it_has() -> None:
    rows = ROWS + [{"text": row["text"], "label": "maybe"} for row in ROWS]
    choice = labelled_text(rows, vocab_size=300, val_fraction=0.4)
    texts = [
        {tuple(part[index]["input_ids"].tolist()) for index in range(len(part))} for part in (choice.train, choice.val)
    ]
    assert not texts[0] & texts[1]
    assert len(choice.train) + len(choice.val) == len(rows)


def test_numbers_are_predicted_from_texts() -> None:
    rows = [{"text": row["text"], "score": number / 2} for number, row in enumerate(ROWS)]
    choice = labelled_text(rows, label="score", task="regression", vocab_size=300)
    assert choice.train[0]["labels"].shape == (1,)
    assert choice.loss is regression_loss


def test_a_sample_without_a_token_is_refused() -> None:
    with pytest.raises(DataError, match=r"^Text 1 has no token\. Remove it, or use a"):
        LabelledTexts(TokenRow([[5], [], [6]]), torch.zeros(3), 5)


@pytest.mark.parametrize(
    ("length", "labels", "said"),
    [
        (2, 1, "A sample must have 3 tokens at least, not 2."),
        (9, 2, "There are 1 texts, but 2 labels."),
    ],
)
def test_what_does_not_fit_together_is_refused(length: int, labels: int, said: str) -> None:
    with pytest.raises(DataError) as refused:
        LabelledTexts(TokenRow([[5]]), torch.zeros(labels), length, before=[1], behind=[2])
    assert str(refused.value) == said
