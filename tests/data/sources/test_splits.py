"""A split never puts the same content into both parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.data import open_source, split_records, text_source
from darkit.data.sources.splits import LEFT_OUT, TRAIN, VAL
from darkit.errors import DataError


@given(st.lists(st.text(max_size=4), min_size=2), st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_equal_documents_are_in_the_same_part_and_neither_part_is_empty(
    texts: list[str], fraction: float, seed: int
) -> None:
    source = text_source([*texts, "one more", "and another"])
    split = split_records(source, val_fraction=fraction, seed=seed)
    train, val = ([record.values["text"] for record in split.records(source, part)] for part in (TRAIN, VAL))
    assert train
    assert val
    assert not set(train) & set(val)
    assert len(train) + len(val) == len(texts) + 2
    assert split.fingerprint == split_records(source, val_fraction=fraction, seed=seed).fingerprint


def test_where_a_document_goes_does_not_depend_on_the_others_around_it() -> None:
    texts = [f"document {number} " + "x" * (number % 7) for number in range(400)]
    one = split_records(text_source(texts), val_fraction=0.2)
    other = split_records(text_source(texts[::-1]), val_fraction=0.2)
    assert one.parts.tolist() == other.parts[::-1].tolist()
    size = sum(len(text) for text, part in zip(texts, one.parts, strict=True) if part == VAL)
    assert size / sum(map(len, texts)) == pytest.approx(0.2, abs=0.01)


def test_seed_fraction_and_content_are_in_the_fingerprint() -> None:
    source = text_source([str(number) for number in range(50)])
    splits = [split_records(source, **options) for options in ({}, {"seed": 1}, {"val_fraction": 0.3})]
    splits.append(split_records(text_source([str(number) for number in range(51)])))
    assert len({split.fingerprint for split in splits}) == 4
    assert splits[0].facts == {
        "by": "fraction",
        "val_fraction": 0.1,
        "seed": 0,
        "train": 45,
        "val": 5,
        "fingerprint": splits[0].fingerprint,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"a.txt": "a", "b.txt": "b", "c.txt": "c", "copy.txt": "b"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("wanted", ["b.txt", ["b.*"], "*/b.txt"])
def test_a_split_by_file_leaves_out_what_would_leak(folder: Path, wanted: Any) -> None:
    split = split_records(open_source(folder), val_files=wanted)
    assert split.parts.tolist() == [TRAIN, VAL, TRAIN, LEFT_OUT]
    assert (split.facts["by"], split.facts["files"], split.facts["left_out"]) == ("files", [str(folder / "b.txt")], 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"val_fraction": -0.1}, "val_fraction must be at least 0 and below 1, not -0.1"),
        ({"val_fraction": 1.0}, "val_fraction must be at least 0 and below 1, not 1.0"),
        ({"val_files": "d.txt"}, r"val_files: no file matches 'd\.txt'. Available: .*a\.txt"),
        ({"val_files": "*.txt"}, "val_files matches all files"),
    ],
)
def test_what_cannot_be_split_is_refused(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        split_records(open_source(folder), **options)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xy")), min_size=1), st.integers(0, 99))
def test_a_text_with_two_labels_is_in_one_part(rows: list[tuple[str, str]], seed: int) -> None:
    records = [{"text": text, "label": label} for text, label in [*rows, ("e", "x"), ("f", "y")]]
    source = open_source(records, fields=("text", "label"))
    split = split_records(source, val_fraction=0.4, seed=seed, by=("text",))
    train, val = ({record.values["text"] for record in split.records(source, part)} for part in (TRAIN, VAL))
    assert train
    assert val
    assert not train & val


def test_what_has_no_records_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n")
    for fraction in (0, 0.1):
        with pytest.raises(DataError, match=r"^There are no records in .*a\.csv\.$"):
            split_records(open_source(tmp_path / "a.csv"), val_fraction=fraction)


def test_one_content_cannot_be_in_two_parts() -> None:
    with pytest.raises(DataError, match="needs two different documents at least, not 1"):
        split_records(text_source(["same", "same"]))
    assert split_records(text_source(["same", "same"]), val_fraction=0).parts.tolist() == [TRAIN, TRAIN]
