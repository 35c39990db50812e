"""Pairs of sentences: half of them follow each other, and a random one is never of the same document."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

from darkit.data.objectives.masking import Masking
from darkit.data.objectives.next_sentence import SentencePairs
from darkit.data.text.specials import Specials
from darkit.data.text.windows import TokenRow
from darkit.errors import DataError

SPECIALS = Specials(vocabulary=1004, ids=frozenset({0, 1, 2, 3}), mask=3, pad=0, cls=1, sep=2)


def pairs(sizes: tuple[int, ...] = (40, 1, 25, 60, 0, 7), length: int = 16, **options: Any) -> SentencePairs:
    """Documents of tokens that count up, the document's number being the hundreds."""
    documents = [[100 * number + 4 + place for place in range(size)] for number, size in enumerate(sizes, 1)]
    return SentencePairs(TokenRow(documents, 1004), length, Masking(SPECIALS), **options)


def halves(sample: dict[str, torch.Tensor]) -> tuple[list[int], list[int]]:
    """The two texts, with what was hidden put back."""
    ids = torch.where(sample["labels"] == -100, sample["input_ids"], sample["labels"]).tolist()
    first = ids.index(2)
    assert (ids[0], ids[-1]) == (1, 2)
    assert sample["token_type_ids"].tolist() == [0] * (first + 1) + [1] * (len(ids) - first - 1)
    return ids[1:first], ids[first + 1 : -1]


def test_half_of_the_second_texts_come_next_and_the_others_are_of_another_document() -> None:
    torch.manual_seed(0)
    data = pairs()
    labels, seen = [], set()
    for index in list(range(len(data))) * 150:
        sample = data[index]
        one, two = halves(sample)
        assert one
        assert two
        assert one == list(range(one[0], one[0] + len(one)))
        assert two == list(range(two[0], two[0] + len(two)))
        assert len(one) + len(two) <= 13
        random = int(sample["next_sentence_label"])
        labels.append(random)
        if random:
            assert one[0] // 100 != two[0] // 100
            seen.add(two[0] // 100)
        else:
            assert two[0] == one[-1] + 1
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=4 * (0.25 / len(labels)) ** 0.5)
    assert seen == {1, 3, 4, 6}, "all documents with two tokens"


def test_the_texts_are_cut_where_sentences_end() -> None:
    torch.manual_seed(1)
    endings = numpy.arange(1004) % 5 == 3  # five tokens are a sentence
    data = pairs((40, 40, 40), endings=endings)
    for index in list(range(len(data))) * 20:
        one, two = halves(data[index])
        assert endings[one[-1]]
        assert endings[two[0] - 1] or two[0] % 100 == 4, "behind the end of a sentence, or where a document begins"
        assert len(two) == 13 - len(one) or two[-1] % 100 == 43, "as long as can be, or to the end of a document"
    none = pairs((40, 40), endings=numpy.zeros(1004, dtype=bool))
    assert len({len(halves(none[0])[0]) for _ in range(60)}) > 8, "anywhere"


def test_every_piece_is_there_once() -> None:
    assert len(pairs()) == 3 + 2 + 5 + 1, "but what is too short to be cut"
    with pytest.raises(IndexError):
        pairs()[11]


def test_the_batch_is_what_berts_pretraining_takes() -> None:
    data = pairs()
    batch = data.collate_fn([data[0], data[5]])
    names = ["attention_mask", "input_ids", "labels", "next_sentence_label", "token_type_ids"]
    assert sorted(batch) == names
    assert batch["next_sentence_label"].shape == (2,)
    assert len({batch[name].shape for name in names if name != "next_sentence_label"}) == 1


def test_a_seed_makes_the_same_pairs_always() -> None:
    one, two = pairs(seed=4), pairs(seed=4)
    for index in range(len(one)):
        assert all(torch.equal(one[index][name], two[index][name]) for name in one[index])


@pytest.mark.parametrize(
    ("sizes", "length", "said"),
    [
        ((40, 1), 16, "Pairs of sentences need two documents at least with two tokens each."),
        ((40, 40), 4, "A pair must have 5 tokens at least ([CLS] a [SEP] b [SEP]), not 4."),
    ],
)
def test_what_makes_no_pairs_is_refused(sizes: tuple[int, ...], length: int, said: str) -> None:
    with pytest.raises(DataError) as refused:
        pairs(sizes, length)
    assert str(refused.value) == said


def test_a_tokenizer_without_the_tokens_between_is_refused() -> None:
    bare = Specials(vocabulary=9, ids=frozenset({3}), mask=3)
    with pytest.raises(DataError, match=r"^Pairs of sentences need a tokenizer with the special tokens \[CLS\] and"):
        SentencePairs(TokenRow([[4, 5], [6, 7]]), 16, Masking(bare))
