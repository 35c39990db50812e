"""``darkit data``: text made ready once, and what there is of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from darkit.data import cache_folder
from tests.cli.parts import done, refused


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.txt").write_text(f"This is {name} of the texts.\n" * 5)
    return folder


def test_prepared_text_is_shown_listed_and_found_by_the_beginning_of_its_key(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = done(capsys, "data", "prepare", str(texts), "--vocab-size", "280", "--val-fraction", "0.4")
    key = out.splitlines()[0]
    folder = cache_folder() / key
    assert (folder / "data.json").is_file()
    assert f"folder         {folder}" in out
    assert "train          2 documents" in out
    assert "val            1 documents" in out
    assert "split          by fraction, seed 0" in out
    assert re.search(r"^  document 0     This is \w+ of the texts\. This is", out, re.MULTILINE)
    assert "unigram model" in out
    assert done(capsys, "data", "show", key[:4]) == out
    listed = done(capsys, "data", "show")
    assert listed.splitlines()[0].split() == ["key", "made", "documents", "tokens", "vocabulary", "MB", "from"]
    assert listed.splitlines()[1].startswith(key)
    assert f"{texts}/one.txt and 2 more" in listed


def test_programs_get_json(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(done(capsys, "data", "prepare", f"{texts}/o*.txt", f"{texts}/two.txt", "--json"))
    assert one["vocabulary"] > 257
    assert one["parts"]["train"]["documents"] == 1
    assert one["files"] == [f"{texts}/one.txt", f"{texts}/two.txt"]
    (row,) = json.loads(done(capsys, "data", "show", "--json"))
    assert (row["key"], row["documents"], row["problem"]) == (one["key"], 2, "")


def test_every_option_of_the_preparation_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"message": f"message {number:02}"}) + "\n" for number in range(20)))
    options = ("--field", "message", "--kind", "characters", "--val-fraction", "0.5", "--seed", "3", "--json")
    one = json.loads(done(capsys, "data", "prepare", str(path), *options))
    assert one["split"] | {"fingerprint": ""} == {
        "by": "fraction",
        "val_fraction": 0.5,
        "seed": 3,
        "train": 10,
        "val": 10,
        "fingerprint": "",
    }
    special = ("--special-tokens", "<|endoftext|>", "[PAD]", "[UNK]")
    more = json.loads(done(capsys, "data", "prepare", str(path), *options, *special))
    assert (more["vocabulary"], more["key"] != one["key"]) == (one["vocabulary"] + 1, True)
    tokenizer = cache_folder() / one["key"] / "tokenizer.json"
    again = json.loads(
        done(capsys, "data", "prepare", str(path), "--field", "message", "--tokenizer", str(tokenizer), "--json")
    )
    assert again["vocabulary"] == one["vocabulary"] < 30


def test_nothing_prepared_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Run `darkit data prepare PATH`." in done(capsys, "data", "show")
    assert json.loads(done(capsys, "data", "show", "--json")) == []


def test_damaged_data_is_listed_with_its_problem(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = json.loads(done(capsys, "data", "prepare", str(texts), "--json"))["key"]
    (cache_folder() / key / "train.index").unlink()
    assert "train.index is missing" in done(capsys, "data", "show")
    assert "train.index is missing" in refused(capsys, "data", "show", key)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prepare", "nope.txt"), "There is no file nope.txt"),
        (("prepare", "texts", "--kind", "bpm"), "Did you mean 'bpe'?"),
        (("prepare", "texts", "--vocab-size", "9"), "vocab_size must be at least 257"),
        (("prepare", "texts", "--documents", "page"), "documents must be one of file, paragraph, line, not 'page'"),
        (("prepare", "texts", "--field", "body"), "no field 'body'. Available: text"),
        (("show", "abc"), "The key 'abc' matches none of the prepared data in"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(
    texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(texts.parent)
    assert said in refused(capsys, "data", *words)
    assert not [path for path in cache_folder().glob("*") if path.is_dir()]
