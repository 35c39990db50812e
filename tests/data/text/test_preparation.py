"""Text is made ready once, whole or not at all, under a name that says what it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from darkit.data.text import preparation as module
from darkit.data.text.preparation import open_prepared, prepare
from darkit.data.text.tokenizers import END_OF_TEXT, train_tokenizer
from darkit.errors import DataError, StorageError
from tests.children import LIMIT

TEXTS = {f"{name}.txt": f"The {name} of the file is {name}.\n" * 9 for name in ("one", "two", "three", "four", "five")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "texts"
    place.mkdir()
    for name, text in TEXTS.items():
        (place / name).write_text(text)
    return place


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def decoded(prepared: module.Prepared, part: str) -> list[str]:
    tokens = getattr(prepared, part)
    return [prepared.tokenizer.decode(tokens.document(index)[:-1]) for index in range(tokens.documents)]


def test_every_document_is_in_one_part_whole_with_its_end(folder: Path, cache: Path) -> None:
    prepared = prepare(folder, vocab_size=300, val_fraction=0.3, cache=cache)
    assert prepared.val is not None
    assert sorted(decoded(prepared, "train") + decoded(prepared, "val")) == sorted(TEXTS.values())
    end = prepared.tokenizer.token_to_id(END_OF_TEXT)
    for tokens in (prepared.train, prepared.val):
        assert all(tokens.document(index)[-1] == end for index in range(tokens.documents))
        assert tokens.vocabulary == prepared.vocabulary <= 300
    assert prepared.train.documents == prepared.facts["split"]["train"]
    assert 2.0 < prepared.meta["unigram"] < 6.0


def test_it_is_done_once(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(folder, vocab_size=300, cache=cache)
    monkeypatch.setattr(module, "encode_batch", None)  # it would fail if it were done again
    again = prepare(folder, vocab_size=300, cache=cache)
    assert (again.folder, again.meta) == (first.folder, first.meta)
    moved = folder.rename(folder.with_name("elsewhere"))
    assert prepare(moved, vocab_size=300, cache=cache).folder == first.folder, "it is the content that counts"


@pytest.mark.parametrize(
    "options",
    [
        {"vocab_size": 301},
        {"kind": "characters"},
        {"special_tokens": ["<|endoftext|>", "<x>"]},
        {"documents": "line"},
        {"val_fraction": 0.4},
        {"val_files": "two.txt"},
        {"seed": 1},
        {"end_of_text": False},
        {"tokenizer": train_tokenizer(["the file"], vocab_size=280)},
    ],
)
def test_another_option_is_another_preparation(folder: Path, cache: Path, options: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"vocab_size": 300, "cache": cache}
    assert prepare(folder, **usual).folder != prepare(folder, **{**usual, **options}).folder


def test_another_content_is_another_preparation(folder: Path, cache: Path) -> None:
    first = prepare(folder, vocab_size=300, cache=cache)
    (folder / "six.txt").write_text("six\n")
    assert prepare(folder, vocab_size=300, cache=cache).folder != first.folder


def test_documents_without_their_end_and_without_a_split(folder: Path, cache: Path) -> None:
    prepared = prepare(folder, vocab_size=300, val_fraction=0, end_of_text=False, cache=cache)
    assert prepared.val is None
    assert prepared.meta["unigram"] is None
    texts = [prepared.tokenizer.decode(prepared.train.document(index)) for index in range(5)]
    assert texts == [TEXTS[name] for name in sorted(TEXTS)]


def test_a_file_for_evaluation_is_not_trained_on_wherever_its_content_is(folder: Path, cache: Path) -> None:
    (folder / "copy.txt").write_text(TEXTS["two.txt"])
    prepared = prepare(folder, vocab_size=300, val_files=["two.txt"], cache=cache)
    assert decoded(prepared, "val") == [TEXTS["two.txt"]]
    assert TEXTS["two.txt"] not in decoded(prepared, "train")
    assert prepared.facts["split"]["left_out"] == 1


def test_a_given_tokenizer_is_kept_with_the_data(folder: Path, cache: Path, tmp_path: Path) -> None:
    given = train_tokenizer(["the file of one"], "characters")
    path = tmp_path / "tokenizer.json"
    given.save(str(path))
    prepared = prepare(folder, path, cache=cache)
    assert Tokenizer.from_str(prepared.tokenizer.to_str()).get_vocab() == given.get_vocab()
    assert prepare(folder, given, cache=cache).folder == prepared.folder


def test_a_tokenizer_without_an_end_is_refused_before_anything_is_made(folder: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="has no end token, which text of several documents needs: add one of"):
        prepare(folder, train_tokenizer(["a"], special_tokens=["<x>"]), cache=cache)
    assert not cache.exists()


def test_the_special_tokens_of_a_tokenizer_are_part_of_it_but_not_how_it_cuts_and_pads(
    folder: Path, cache: Path
) -> None:
    backend = train_tokenizer(["the file"], special_tokens=["<one>", "<two>"])
    one, two = (PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=token) for token in ("<one>", "<two>"))
    first, second = (prepare(folder, tokenizer, cache=cache) for tokenizer in (one, two))
    assert [prepared.train.document(0)[-1] for prepared in (first, second)] == [0, 1]
    assert [prepared.tokenizer.eos_token for prepared in (first, second)] == ["<one>", "<two>"]
    one(["a long text"], truncation=True, max_length=2)
    assert prepare(folder, one, cache=cache).folder == first.folder


def test_text_that_is_wrong_leaves_nothing(folder: Path, cache: Path) -> None:
    (folder / "z.txt").write_bytes(b"good \xff bad")
    with pytest.raises(DataError, match=r"z\.txt is not UTF-8 text: byte 0xff at offset 5"):
        prepare(folder, vocab_size=300, cache=cache)
    assert list(cache.iterdir()) == []


def damage_shard(folder: Path) -> None:
    path = folder / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])


def damage_manifest(folder: Path) -> None:
    (folder / "data.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_shard, damage_manifest])
def test_what_is_damaged_is_prepared_again(folder: Path, cache: Path, damage: Callable[[Path], None]) -> None:
    first = prepare(folder, vocab_size=300, cache=cache)
    texts = decoded(first, "train")
    damage(first.folder)
    with pytest.raises(DataError):
        open_prepared(first.folder)
    assert decoded(prepare(folder, vocab_size=300, cache=cache), "train") == texts


def test_a_place_that_cannot_be_written_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot prepare data in"):
        prepare(folder, vocab_size=300, cache=tmp_path / "file")


SLOW = """
import fcntl, sys
from pathlib import Path
from darkit.data.text import preparation as module
encode = module.encode_batch
def slow(tokenizer, texts):
    print("begun", flush=True)
    sys.stdin.readline()
    return encode(tokenizer, texts)
module.encode_batch = slow
flock, waited = fcntl.flock, []
def announce(*lock):
    try:
        return flock(*lock)
    except BlockingIOError:
        if not waited:
            waited.append(print("waits", flush=True))
        raise
fcntl.flock = announce
print(module.prepare(sys.argv[1], vocab_size=300, cache=Path(sys.argv[2])).folder.name, flush=True)
"""


@contextmanager
def started(folder: Path, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """A preparation in another process, which is gone in the end whatever happens."""
    command = [sys.executable, "-c", SLOW, str(folder), str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_preparation_is_never_read_and_begins_anew(folder: Path, cache: Path) -> None:
    with started(folder, cache) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGKILL)
    left = [path for path in cache.iterdir() if path.is_dir()]
    assert [path.name.startswith(".") for path in left] == [True], "what is half done has no name of its own"
    prepared = prepare(folder, vocab_size=300, cache=cache)
    assert sorted(decoded(prepared, "train") + decoded(prepared, "val")) == sorted(TEXTS.values())
    assert [path for path in cache.iterdir() if path.is_dir()] == [prepared.folder]


def test_two_at_once_make_it_once(folder: Path, cache: Path) -> None:
    with started(folder, cache) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "begun\n"
        with started(folder, cache) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "waits\n"
            out, _ = one.communicate("go\n", timeout=LIMIT)
            second, _ = other.communicate("go\n", timeout=LIMIT)
    assert second == out, "the second one finds it, and says nothing of having begun"
    assert [path.name for path in cache.iterdir()] == [out.split()[-1]], "nor is a lock left"
