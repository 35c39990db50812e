"""The embedded text: real prose, split by documents that never leak, in windows of its own tokenizer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkit.data import DataChoice, embedded_documents, split_documents, text_data, train_bpe
from darkit.data.objectives.causal import encode_documents
from darkit.data.text.tokenizers import END_OF_TEXT
from darkit.errors import DataError


@pytest.fixture(scope="module")
def choice() -> DataChoice:
    return text_data(context_length=32, vocab_size=300)


def test_every_python_carries_enough_english_prose() -> None:
    documents = embedded_documents()
    assert sum(map(len, documents)) > 400_000
    assert any("import statement" in document for document in documents)
    assert documents == embedded_documents()


lengths = st.lists(st.integers(0, 300), min_size=2, max_size=30)


@given(lengths, st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_a_split_is_of_whole_documents_and_none_is_in_both_parts(sizes: list[int], part: float, seed: int) -> None:
    documents = [f"{index}:" + "x" * size for index, size in enumerate(sizes)]
    train, val = split_documents(documents, part, seed)
    assert train
    assert val
    assert sorted(train + val) == sorted(documents)
    assert [document for document in documents if document in set(train)] == train, "the order is kept"
    assert [document for document in documents if document in set(val)] == val
    assert (train, val) == split_documents(documents, part, seed)


def test_a_split_has_about_the_size_that_was_asked_for() -> None:
    documents = embedded_documents()
    total = sum(map(len, documents))
    for part in (0.05, 0.1, 0.5):
        for seed in range(5):
            _, val = split_documents(documents, part, seed)
            assert sum(map(len, val)) / total == pytest.approx(part, abs=0.03)


def test_another_seed_is_another_split() -> None:
    documents = embedded_documents()
    assert len({tuple(split_documents(documents, 0.1, seed)[1]) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("documents", "part", "said"),
    [
        (["a", "b"], 0.0, "val_fraction must be above 0 and below 1, not 0.0."),
        (["a", "b"], 1.0, "val_fraction must be above 0 and below 1, not 1.0."),
        (["a", "b"], float("nan"), "val_fraction must be above 0 and below 1, not nan."),
        (
            ["a"],
            0.5,
            "A split needs two different documents at least, not 1. Give more, split texts into paragraphs or lines "
            "(documents=line), or hold out none (val_fraction=0).",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(documents: list[str], part: float, said: str) -> None:
    with pytest.raises(DataError) as refused:
        split_documents(documents, part, 0)
    assert str(refused.value) == said


def test_after_each_document_comes_the_end_of_text() -> None:
    tokenizer = train_bpe(["one two"], vocab_size=257)
    row = encode_documents(tokenizer, ["ab", "", "c"])
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert row.dtype == torch.int32
    assert row.tolist() == [*tokenizer.encode("ab").ids, end, end, *tokenizer.encode("c").ids, end]


def test_the_windows_hold_the_text_and_the_tokenizer_brings_it_back(choice: DataChoice) -> None:
    joined = "".join(embedded_documents())
    for part in (choice.train, choice.val):
        inputs, targets = part[0]
        assert inputs.shape == targets.shape == (32,)
        assert torch.equal(inputs[1:], targets[:-1])
        assert choice.tokenizer.decode(inputs.tolist()) in joined
    assert choice.tokenizer.get_vocab_size() == 300
    assert len(choice.train) > 5 * len(choice.val) > 0


def test_nothing_of_the_validation_text_is_trained_on_not_even_the_tokenizer(choice: DataChoice) -> None:
    train_documents, val_documents = split_documents(embedded_documents(), 0.1, 0)
    assert choice.tokenizer.to_str() == train_bpe(train_documents, 300).to_str()
    assert torch.equal(choice.train.tokens, encode_documents(choice.tokenizer, train_documents))
    assert torch.equal(choice.val.tokens, encode_documents(choice.tokenizer, val_documents))


def test_the_baseline_is_the_unigram_models_cross_entropy_on_the_same_split(choice: DataChoice) -> None:
    counts = torch.bincount(choice.train.tokens.long(), minlength=300).double() + 1
    wanted = -(counts / counts.sum()).log()[choice.val.tokens.long()].mean().item()
    assert choice.baselines == {"unigram model": pytest.approx(wanted, rel=1e-9)}
    assert 3 < wanted < 5.71


def test_it_is_the_same_for_the_same_seed(choice: DataChoice) -> None:
    again, other = text_data(32, 300), text_data(32, 300, seed=1)
    fingerprints = [data.train.facts["split"]["fingerprint"] for data in (choice, again, other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert torch.equal(again.val.tokens, choice.val.tokens)
    assert not torch.equal(other.val.tokens[:100], choice.val.tokens[:100])
