"""Text tokenized while it is read: every token once, for any number of workers and processes, and from any position."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from darkit.data import TokenWindows, train_bpe
from darkit.data.text import stream as module
from darkit.data.text.stream import TokenStream, streamed_text
from darkit.errors import DataError

TOKENIZER = train_bpe(["x"], vocab_size=257)  # bytes
END = 0


class Texts:
    """Gives texts, and counts those that were read."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def __call__(self) -> Iterator[str]:
        return (chr(ord("a") + number % 26) * size for number, size in enumerate(self.sizes))

    def row(self) -> torch.Tensor:
        return torch.tensor([token for text in self() for token in (*TOKENIZER.encode(text).ids, END)])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_TEXTS", 3)


def stream(
    sizes: list[int], length: int = 4, pad: int | None = 9, named: bool = False, shuffle: int = 0, epoch: int = 0
) -> TokenStream:
    data = TokenStream(Texts(sizes), TOKENIZER, length, end=END, vocabulary=257, pad=pad, named=named, shuffle=shuffle)
    data.set_epoch(epoch)
    return data


def plain(samples: Any) -> list[Any]:
    return [[part.tolist() for part in (sample.values() if isinstance(sample, dict) else sample)] for sample in samples]


sizes_of_texts = st.lists(st.integers(0, 15), min_size=1, max_size=20)


@given(sizes_of_texts, st.integers(2, 9), st.booleans(), st.booleans())
def test_it_gives_what_windows_over_the_whole_would(sizes: list[int], length: int, padded: bool, named: bool) -> None:
    data = stream(sizes, length, pad=9 if padded else None, named=named)
    row = Texts(sizes).row()
    try:
        wanted = plain(TokenWindows(row, length, pad=9 if padded else None, named=named))
    except DataError:
        wanted = []
    assert plain(data) == wanted
    assert plain(data) == wanted, "and again in the next epoch"


@given(sizes_of_texts, st.integers(2, 6), st.integers(0, 5), st.data())
def test_it_goes_on_from_any_place(sizes: list[int], length: int, shuffle: int, data: st.DataObject) -> None:
    whole = plain(stream(sizes, length, shuffle=shuffle, epoch=2))
    place = data.draw(st.integers(0, len(whole)))
    first = stream(sizes, length, shuffle=shuffle, epoch=2)
    samples = iter(first)
    taken = plain(next(samples) for _ in range(place))
    second = stream(sizes, length, shuffle=shuffle, epoch=2)
    second.load_state_dict(first.state_dict())
    assert taken + plain(second) == whole
    assert plain(second) == whole, "the next epoch is whole again"
    assert second.state_dict() == {}


@given(sizes_of_texts, st.integers(2, 6), st.integers(1, 30), st.integers(1, 2))
def test_shuffled_it_gives_the_same_windows(sizes: list[int], length: int, shuffle: int, world: int) -> None:
    found, wanted = [], []
    for rank in range(world):
        for mixed, windows in ((shuffle, found), (0, wanted)):
            data = stream(sizes, length, shuffle=mixed)
            data.set_rank(rank, world)
            windows += plain(data)
    assert sorted(found) == sorted(wanted)


def test_each_epoch_has_an_order_of_its_own_and_mixes_as_many_texts_as_was_asked_for() -> None:
    sizes = [9] * 30
    orders = [plain(stream(sizes, shuffle=10, epoch=epoch)) for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] != plain(stream(sizes))
    whole = plain(stream(sizes))
    for order in orders:
        assert sorted(order[:24]) == sorted(whole[:24]), "of the first ten texts, a hundred tokens"
        assert order[:24] != whole[:24]


def test_what_is_broken_off_begins_anew_unless_a_state_is_loaded() -> None:
    data = stream([9] * 9)
    next(iter(data))
    assert len(plain(data)) == len(plain(stream([9] * 9)))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_lose_no_text_and_read_none_twice(workers: int) -> None:
    sizes = [5, 6, 9, 3, 12, 7, 1, 4, 8, 2]
    loader = DataLoader(stream(sizes, pad=9), batch_size=None, num_workers=workers)
    found = [token for _, targets in loader for token in targets.tolist() if token != -100]
    firsts = [TOKENIZER.encode(text).ids[0] for text in list(Texts(sizes)())[:workers]]
    expected = Texts(sizes).row().tolist()
    for token in firsts:
        expected.remove(token)
    assert sorted(found) == sorted(expected), "all but the first of each worker, which nothing comes before"


@given(sizes_of_texts, st.integers(2, 3), st.booleans())
def test_processes_share_the_windows_and_get_the_same_number(sizes: list[int], world: int, named: bool) -> None:
    whole = plain(stream(sizes, 4, pad=None, named=named))
    parts = []
    for rank in range(world):
        data = stream(sizes, 4, named=named)
        data.set_rank(rank, world)
        parts.append(plain(data))
    rounds = len(whole) // world
    assert [len(part) for part in parts] == [rounds] * world
    assert [window for windows in zip(*parts, strict=True) for window in windows] == whole[: rounds * world]


def test_it_tells_what_a_model_must_take() -> None:
    data = stream([3], length=6)
    assert (data.vocabulary, data.context_length, data.facts) == (257, 6, {})


@pytest.mark.parametrize(("length", "named"), [(0, False), (1, True)])
def test_a_window_without_a_target_is_refused(length: int, named: bool) -> None:
    with pytest.raises(DataError, match=r"^A window must have"):
        stream([3], length, named=named)


def written(folder: Path, count: int = 60) -> Path:
    path = folder / "lines.txt"
    path.write_text("\n".join([f"line {number % 50} says {number % 50 * 7}" for number in range(count)]))
    return path


def test_a_text_goes_to_training_or_evaluation_by_what_it_says(tmp_path: Path) -> None:
    choice = streamed_text(written(tmp_path), vocab_size=300, context_length=8, val_fraction=0.3, seed=3)
    parts = [list(part.texts()) for part in (choice.train, choice.val)]
    assert sorted(parts[0] + parts[1]) == sorted(written(tmp_path).read_text().splitlines())
    assert not set(parts[0]) & set(parts[1]), "not even the ten lines that are there twice"
    assert len(parts[1]) in range(8, 30)
    assert choice.train.facts["split"]["by"] == "content"
    straight = streamed_text(written(tmp_path), vocab_size=300, context_length=8, val_fraction=0.3, seed=3, shuffle=0)
    text = choice.tokenizer.decode([token for tokens, _ in straight.train for token in tokens.tolist()])
    assert text.startswith(parts[0][0])
    assert sorted(plain(straight.train)) == sorted(plain(choice.train)) != plain(choice.train)


def test_the_fingerprint_is_of_what_is_read_and_not_of_where_it_lies(tmp_path: Path) -> None:
    def fingerprint(where: Any, **options: Any) -> str:
        choice = streamed_text(where, tokenizer=TOKENIZER, context_length=8, **options)
        return str(choice.train.facts["split"]["fingerprint"])

    first = fingerprint(written(tmp_path))
    assert fingerprint(written(tmp_path).rename(tmp_path / "moved.txt")) == first
    assert fingerprint(written(tmp_path), seed=1) != first
    assert fingerprint(written(tmp_path, count=61)) != first
    rows = [{"text": str(number)} for number in range(9)]
    assert fingerprint(rows) != fingerprint(rows[::-1])


def test_nothing_to_read_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match=r"^There are no records in .*a\.jsonl\.$"):
        streamed_text(tmp_path / "a.jsonl", tokenizer=TOKENIZER)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_further_on_is_one_sentence_also_from_a_worker(tmp_path: Path, workers: int) -> None:
    path = written(tmp_path, count=100)
    path.write_bytes(path.read_bytes() + b"\nbad \xff")
    loader = DataLoader(streamed_text(path, tokenizer=TOKENIZER, val_fraction=0).train, num_workers=workers)
    with pytest.raises(DataError) as refused:
        list(loader)
    offset = path.stat().st_size - 1
    assert str(refused.value) == f"The file {path} is not UTF-8 text: byte 0xff at offset {offset}."


def test_no_evaluation_and_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    choice = streamed_text(written(tmp_path), tokenizer=TOKENIZER, context_length=8, val_fraction=0, named=True)
    assert choice.val is None
    assert choice.tokenizer is TOKENIZER
    assert sorted(next(iter(choice.train))) == ["input_ids", "labels"]


def test_only_the_first_texts_train_the_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRAINING_CHARACTERS", 30)
    read = []

    def texts() -> Iterator[str]:
        for number in range(100):
            read.append(number)
            yield "x" * 20

    assert [len(text) for text in module._first_texts(texts)] == [20, 10]
    assert read == [0, 1]


def test_wrong_settings_of_a_stream_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^val_fraction must be at least 0 and below 1, not 1\.$"):
        streamed_text(written(tmp_path), val_fraction=1)
    with pytest.raises(DataError, match=r"^shuffle must be at least 0, not -1\.$"):
        streamed_text(written(tmp_path), shuffle=-1)
    with pytest.raises(DataError, match=r"^The tokenizer has no end token, which packing texts one after the other"):
        streamed_text(written(tmp_path), tokenizer=train_bpe(["x"], 257, ["[PAD]"]))
