"""BERT's masking: its rates, what it never touches, whole words, and that the same numbers hide the same tokens."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkit.data.objectives.masking import MaskedTokens, Masking
from darkit.data.text.specials import Specials
from darkit.data.text.windows import TokenRow
from darkit.errors import DataError

SPECIALS = Specials(vocabulary=100, ids=frozenset({0, 1, 2, 3}), mask=3, pad=0, cls=1, sep=2)
BEGINS = numpy.arange(100) % 3 != 0  # every third token goes on with a word


def text(count: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(4, 100, count)


def generator(seed: int = 0) -> numpy.random.Generator:
    return numpy.random.default_rng(seed)


@pytest.mark.parametrize("length", [7, 20, 128])
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_the_rates_are_those_of_the_paper_whatever_the_length(length: int, rate: float) -> None:
    masking, random = Masking(SPECIALS, rate=rate), generator()
    count = 60_000 // length
    rows = [text(length, seed) for seed in range(count)]
    pairs = [masking(row, random) for row in rows]
    chosen = [int((labels != -100).sum()) for _, labels in pairs]
    assert {abs(number - rate * length) < 1 for number in chosen} == {True}, "of each row, to within one token"
    total = sum(chosen)
    assert total / (length * count) == pytest.approx(rate, rel=0.02)
    ids = numpy.concatenate([row[labels != -100] for row, (_, labels) in zip(rows, pairs, strict=True)])
    seen = numpy.concatenate([inputs[labels != -100] for inputs, labels in pairs])
    margin = 4 * (0.25 / total) ** 0.5
    assert (seen == 3).mean() == pytest.approx(0.8, abs=margin)
    assert (seen == ids).mean() == pytest.approx(0.1 + 0.1 / 96, abs=margin), "a tenth stays, or is drawn by chance"
    assert min(numpy.bincount(seen, minlength=100)[4:]) > 0, "any token may come in another's place"


@given(st.lists(st.integers(0, 99), max_size=60), st.booleans(), st.integers(0, 2**32))
def test_special_tokens_stay_and_nothing_else_is_asked_for_or_changed(ids: list[int], words: bool, seed: int) -> None:
    row = numpy.array(ids, dtype=numpy.int64)
    inputs, labels = Masking(SPECIALS, begins=BEGINS if words else None)(row, generator(seed))
    asked = labels != -100
    assert not asked[row < 4].any()
    assert (inputs[~asked] == row[~asked]).all()
    assert (labels[asked] == row[asked]).all()
    assert not set(inputs[asked].tolist()) & {0, 1, 2}
    assert asked.any() == (row > 3).any(), "one token at least, where there is one"


@given(st.integers(0, 2**32))
def test_words_are_chosen_whole(seed: int) -> None:
    row = text(60, seed)
    row[20] = 2  # a special token ends a word
    row[21] = 6  # and what would go on with it begins one
    labels = Masking(SPECIALS, begins=BEGINS)(row, generator(seed))[1]
    starts = BEGINS[row] | (row < 4)
    starts[[0, 21]] = True
    words = numpy.cumsum(starts)
    for word in set(words[row > 3]):
        assert len(set((labels[(words == word) & (row > 3)] != -100).tolist())) == 1
    assert (labels != -100).sum() <= max(9, max(numpy.bincount(words)))


def test_the_rate_of_whole_words_is_the_rate_of_tokens() -> None:
    masking, random = Masking(SPECIALS, begins=BEGINS), generator()
    chosen = sum(int((masking(text(100, seed), random)[1] != -100).sum()) for seed in range(300))
    assert chosen / 30_000 == pytest.approx(0.15, abs=0.005)


def test_the_same_numbers_hide_the_same_tokens() -> None:
    row, masking = text(50), Masking(SPECIALS)
    one, two, other = (masking(row, generator(seed))[0].tolist() for seed in (1, 1, 2))
    assert one == two != other


def masked(**options: object) -> MaskedTokens:
    return MaskedTokens(TokenRow([text(30).tolist(), text(5, 1).tolist()], 100), 12, Masking(SPECIALS), **options)  # type: ignore[arg-type]


def test_samples_are_pieces_of_documents_with_what_stands_before_and_behind() -> None:
    samples = [masked()[index] for index in range(len(masked()))]
    whole = [torch.where(sample["labels"] == -100, sample["input_ids"], sample["labels"]) for sample in samples]
    assert [len(row) for row in whole] == [12, 12, 12, 7]
    assert all((row[0], row[-1]) == (1, 2) for row in whole)
    assert torch.cat([row[1:-1] for row in whole]).tolist() == [*text(30), *text(5, 1)]
    assert [len(masked(packed=True)[index]["labels"]) for index in range(4)] == [12, 12, 12, 7]


def test_the_batch_has_a_mask_and_the_data_tells_its_limits() -> None:
    data = masked(multiple_of=8, facts={"split": "x"})
    batch = data.collate_fn([data[0], data[3]])
    assert {name: tuple(value.shape) for name, value in batch.items()} == dict.fromkeys(batch, (2, 12))
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]
    assert batch["attention_mask"].sum(1).tolist() == [12, 7]
    assert (data.vocabulary, data.context_length, data.facts) == (100, 12, {"split": "x"})


def test_other_tokens_are_hidden_each_time_by_torchs_generator_but_with_a_seed_the_same() -> None:
    torch.manual_seed(3)
    data = masked()
    first, second = data[0], data[0]
    torch.manual_seed(3)
    again = data[0]
    assert torch.equal(first["labels"], again["labels"])
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert not torch.equal(first["labels"], second["labels"])
    still = masked(seed=5)
    assert torch.equal(still[0]["labels"], still[0]["labels"])
    assert not torch.equal(still[0]["labels"], masked(seed=6)[0]["labels"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 0.0}, "rate must be above 0 and at most 1, not 0.0."),
        (
            {"masked": 0.9, "random": 0.2},
            "masked and random must be at least 0 and together at most 1, not 0.9 and 0.2.",
        ),
    ],
)
def test_rates_out_of_their_range_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(DataError) as refused:
        Masking(SPECIALS, **options)  # type: ignore[arg-type]
    assert str(refused.value) == said


def test_what_leaves_nothing_to_hide_is_refused() -> None:
    with pytest.raises(DataError, match=r"^A sample must have 3 tokens at least, not 2"):
        MaskedTokens(TokenRow([[5, 6]], 100), 2, Masking(SPECIALS))
    with pytest.raises(DataError, match="no tokens"):
        MaskedTokens(TokenRow([], 100), 12, Masking(SPECIALS))
    with pytest.raises(DataError, match="only special tokens"):
        Masking(Specials(vocabulary=4, ids=frozenset({0, 1, 2, 3}), mask=3))
