"""Windows over a row of tokens, and the unigram model to compare with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Subset

from darkit.data import TokenWindows, unigram_cross_entropy
from darkit.data.text.windows import DocumentWindows, Pieces, TokenRow
from darkit.errors import DataError


@given(st.integers(2, 200), st.integers(1, 40))
def test_every_token_but_the_first_and_a_rest_is_a_target_exactly_once(count: int, length: int) -> None:
    if count < length + 1:
        with pytest.raises(DataError):
            TokenWindows(torch.arange(count), length)
        return
    windows = TokenWindows(torch.arange(count), length)
    inputs, targets = zip(*(windows[index] for index in range(len(windows))), strict=True)
    assert all(part.shape == (length,) and part.dtype == torch.int64 for part in (*inputs, *targets))
    found = torch.cat(targets).tolist()
    assert found == list(range(1, len(found) + 1))
    assert count - 1 - len(found) < length, "the rest is shorter than a window"
    assert torch.equal(torch.cat(inputs), torch.cat(targets) - 1), "a target is the token after its input"


def test_a_window_that_is_not_there_is_an_index_error_so_that_iteration_ends() -> None:
    windows = TokenWindows(torch.arange(9), 4)
    assert len(list(windows)) == len(windows) == 2
    for index in (2, -1):
        with pytest.raises(IndexError):
            windows[index]


@pytest.mark.parametrize(
    ("count", "length", "said"),
    [
        (4, 4, "4 tokens are too few for one window of 4 tokens and its target."),
        (0, 1, "0 tokens are too few for one window of 1 tokens and its target."),
        (4, 0, "A window must have 1 token at least, not 0."),
    ],
)
def test_what_makes_no_window_is_refused(count: int, length: int, said: str) -> None:
    with pytest.raises(DataError) as refused:
        TokenWindows(torch.arange(count), length)
    assert str(refused.value) == said


def test_the_unigram_models_cross_entropy_is_what_one_computes_by_hand() -> None:
    train, val = numpy.array([3, 1, 0]), numpy.array([1, 1, 1])  # with one more each: 4/7, 2/7, 1/7
    wanted = -(math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 3
    assert unigram_cross_entropy(train, val) == pytest.approx(wanted, rel=1e-12)


def test_a_unigram_model_that_saw_nothing_finds_all_tokens_alike() -> None:
    nothing, two = numpy.zeros(8, dtype=numpy.int64), numpy.array([0, 0, 1, 0, 1, 0, 0, 0])
    assert unigram_cross_entropy(nothing, two) == pytest.approx(math.log(8), rel=1e-12)
    assert math.isnan(unigram_cross_entropy(two, nothing)), "there is nothing to predict"


rows = st.lists(st.integers(0, 25), min_size=1, max_size=8)


def documents(sizes: list[int]) -> list[list[int]]:
    """Documents whose tokens are all different, from 1 on."""
    numbers = iter(range(1, sum(sizes) + 1))
    return [[next(numbers) for _ in range(size)] for size in sizes]


@given(rows, st.integers(1, 9), st.booleans())
def test_packed_with_a_padded_rest_no_token_is_lost(sizes: list[int], length: int, named: bool) -> None:
    store = TokenRow(documents(sizes))
    if len(store) < 2 or length < 1 + named:
        with pytest.raises(DataError):
            TokenWindows(store, length, pad=0, named=named)
        return
    windows = TokenWindows(store, length, pad=0, named=named)
    found = []
    for index in range(len(windows)):
        inputs, targets = windows[index].values() if named else windows[index]
        assert inputs.shape == targets.shape == (length,)
        asked = (targets != -100) & (torch.arange(length) >= named)  # transformers' models skip the first label
        before = inputs[:-1][asked[1:]] if named else inputs[asked]
        assert torch.equal(before + 1, targets[asked])
        assert (inputs[(targets == -100)] == 0).all()
        found += targets[asked].tolist()
    assert found == list(range(2, len(store) + 1))


@given(rows, st.integers(1, 9), st.booleans())
def test_windows_of_documents_ask_for_each_token_once_and_never_cross(
    sizes: list[int], length: int, named: bool
) -> None:
    parts = documents(sizes)
    if max(sizes) < 2 or length < 1 + named:
        with pytest.raises(DataError):
            DocumentWindows(TokenRow(parts), length, named=named)
        return
    windows = DocumentWindows(TokenRow(parts), length, named=named)
    found = []
    for index in range(len(windows)):
        inputs, targets = windows[index].values() if named else windows[index]
        assert 0 < len(inputs) == len(targets) <= length
        targets = targets[1:] if named else targets
        assert any(set(targets.tolist()) <= set(part[1:]) for part in parts)
        found += targets.tolist()
    assert found == [token for part in parts for token in part[1:]]
    with pytest.raises(IndexError):
        windows[len(windows)]


@given(rows, st.integers(2, 9), st.integers(0, 1), st.booleans())
def test_the_places_of_all_pieces_are_those_of_each(sizes: list[int], size: int, overlap: int, packed: bool) -> None:
    store = TokenRow(documents(sizes))
    pieces = Pieces(store, size, overlap=overlap, packed=packed)
    assert pieces.places().tolist() == [list(pieces.place(index)) for index in range(len(pieces))]
    if not overlap:
        assert [token for piece in map(pieces.__getitem__, range(len(pieces))) for token in piece.tolist()] == list(
            range(1, len(store) + 1)
        )


def test_documents_are_padded_in_the_batch_with_nothing_asked_for_there() -> None:
    windows = DocumentWindows(TokenRow([[1, 2, 3, 4], [5, 6]]), 8, pad=9)
    inputs, targets = windows.collate_fn([windows[0], windows[1]])
    assert inputs.tolist() == [[1, 2, 3], [5, 9, 9]]
    assert targets.tolist() == [[2, 3, 4], [6, -100, -100]]
    fixed = DocumentWindows(windows.tokens, 8, fixed=True)
    assert fixed.collate_fn([fixed[0]])[0].shape == (1, 8)


def test_windows_tell_what_a_model_must_take() -> None:
    for windows in (TokenWindows(torch.tensor([3, 6, 1]), 2), DocumentWindows(TokenRow([[3, 6, 1]]), 2)):
        assert (windows.vocabulary, windows.context_length, windows.facts) == (7, 2, {})
    assert TokenWindows(TokenRow([[1, 2]], vocabulary=50), 1, facts={"split": "x"}).vocabulary == 50


def test_a_memory_mapped_array_is_a_row(tmp_path: Path) -> None:
    ids = numpy.random.default_rng(0).integers(0, 60_000, 50).astype(numpy.uint16)
    ids.tofile(tmp_path / "train.bin")
    mapped = TokenWindows(numpy.memmap(tmp_path / "train.bin", dtype="uint16", mode="r"), 8, pad=0)
    expected = TokenWindows(torch.from_numpy(ids.astype(numpy.int64)), 8, pad=0)
    assert mapped.vocabulary == expected.vocabulary == int(ids.max()) + 1
    assert len(mapped) == len(expected)
    for sample, other in zip(mapped, expected, strict=True):
        assert all(map(torch.equal, sample, other))
    for found, other in zip(mapped.__getitems__([3, 1]), expected.__getitems__([3, 1]), strict=True):
        assert all(map(torch.equal, found, other))


@pytest.mark.parametrize(
    ("windows", "tokens", "said"),
    [
        (TokenWindows, torch.zeros(9, 2, dtype=torch.long), r"one row of whole numbers, not torch.int64 of the shape"),
        (TokenWindows, numpy.zeros(9), r"one row of whole numbers, not float64 of the shape \(9,\)"),
        (TokenWindows, [1, 2, 3, 4], "a tensor or an array of ids, or a TokenRow of documents, not a list"),
        (DocumentWindows, torch.arange(9), r"needs documents, .* and not one row of ids, a Tensor: give TokenRow"),
        (DocumentWindows, numpy.arange(9), r"and not one row of ids, a ndarray: give TokenRow"),
    ],
)
def test_tokens_of_another_kind_are_refused_at_once(windows: Any, tokens: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        windows(tokens, 2)


def test_a_row_in_memory_gives_its_documents_back() -> None:
    row = TokenRow([[1, 2], [], [3]])
    assert (row.documents, len(row), row.vocabulary) == (3, 3, 4)
    assert [row.document(index).tolist() for index in range(3)] == [[1, 2], [], [3]]
    assert (len(TokenRow([])), TokenRow([]).documents) == (0, 0)


def parts_of(batch: Any) -> list[torch.Tensor]:
    return list(batch.values()) if isinstance(batch, dict) else list(batch)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("pad", [None, 0])
@pytest.mark.parametrize("kind", [torch.tensor, lambda ids: TokenRow([ids]), numpy.array])
def test_a_batch_that_is_read_at_once_is_that_of_its_samples(kind: Any, pad: int | None, named: bool) -> None:
    windows = TokenWindows(kind(list(range(1, 24))), 4, pad=pad, named=named)
    places = [3, 0, 3, len(windows) - 1]  # the last one is padded, if any is
    for dataset, indices in ((windows, places), (windows, places[:3]), (Subset(windows, places), [2, 1])):
        (found,) = DataLoader(dataset, batch_sampler=[indices])
        (wanted,) = DataLoader([dataset[index] for index in indices], batch_size=len(indices))
        assert type(found) is type(wanted)
        for one, other in zip(parts_of(found), parts_of(wanted), strict=True):
            assert (one.dtype, one.is_contiguous()) == (torch.int64, True)
            assert torch.equal(one, other)
    inputs, targets = parts_of(found)
    assert inputs.untyped_storage().data_ptr() != targets.untyped_storage().data_ptr(), "each can be changed alone"


def test_the_samples_of_a_batch_are_those_of_the_dataset() -> None:
    for named in (False, True):
        windows = TokenWindows(torch.arange(20), 4, named=named)
        rows = windows.__getitems__([2, 0, 1])
        assert len(rows) == len(list(rows)) == len(rows[:]) == 3
        for row, index in zip(rows, [2, 0, 1], strict=True):
            assert isinstance(row, type(windows[index]))
            for one, other in zip(parts_of(row), parts_of(windows[index]), strict=True):
                assert torch.equal(one, other)
        collated = torch.utils.data.default_collate(list(rows))
        assert [torch.equal(*pair) for pair in zip(parts_of(collated), parts_of(rows.batch), strict=True)] == [True] * 2
    for wrong in ([0, 4], [-1]):
        with pytest.raises(IndexError):
            TokenWindows(torch.arange(17), 4).__getitems__(wrong)


class _Operations(TorchDispatchMode):
    """Count the operations of torch in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_the_operations_of_a_batch_do_not_grow_with_its_windows() -> None:
    windows = TokenWindows(TokenRow([list(range(2000))]), 4)
    counts = []
    for size in (4, 64):
        with _Operations() as operations:
            assert torch.utils.data.default_collate(windows.__getitems__(list(range(size))))[0].shape == (size, 4)
        counts.append(len(operations.names))
    assert counts[0] == counts[1] <= 6


def test_the_samples_of_a_derived_class_are_its_own() -> None:
    class Reversed(TokenWindows):
        def __getitem__(self, index: int) -> Any:
            inputs, targets = super().__getitem__(index)
            return inputs.flip(0), targets

    ((inputs, targets),) = DataLoader(Reversed(torch.arange(9), 4), batch_size=2)
    assert inputs.tolist() == [[3, 2, 1, 0], [7, 6, 5, 4]]
    assert targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
