"""One's own text trains a language model in one command, whatever its tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import darkit
from darkit.data import text_files, train_tokenizer
from tests.cli.parts import done, refused

MODEL = ("model.config.num_layers=1", "model.config.num_heads=2", "model.config.hidden_size=16")
QUICK = ("trainer.max_step=4", "trainer.eval_iters=2", "trainer.batch_size=4", "data.context_length=16", *MODEL)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.txt").write_text(f"This is {name} of the texts, 第{name}个.\n" * 9)
    return folder


def test_no_token_is_lost_and_each_is_asked_for_once(texts: Path) -> None:
    choice = text_files(texts, context_length=10, vocab_size=280, val_fraction=0.4)
    for windows in (choice.train, choice.val):
        targets = torch.cat([windows[index][1] for index in range(len(windows))])
        store = windows.tokens
        assert targets[targets >= 0].tolist() == store.tokens(1, len(store)).tolist()
    assert choice.settings == {"vocab_size": choice.train.vocabulary}
    assert set(choice.baselines) == {"unigram model"}


def test_documents_that_are_not_packed_have_windows_of_their_own_and_are_padded(texts: Path) -> None:
    options = {"context_length": 16, "vocab_size": 280, "val_fraction": 0.4, "documents": "line", "packed": False}
    longest, fixed = text_files(texts, **options), text_files(texts, **options, fixed=True)
    store = longest.train.tokens
    targets = [longest.train[index][1] for index in range(len(longest.train))]
    wanted = [token for number in range(store.documents) for token in store.document(number)[1:].tolist()]
    assert torch.cat(targets).tolist() == wanted, "all but what each document begins with"
    short = sorted(range(len(targets)), key=lambda index: len(targets[index]))[:2]
    shapes = [choice.train.collate_fn([choice.train[index] for index in short])[0].shape for choice in (longest, fixed)]
    assert shapes == [(2, len(targets[short[1]])), (2, 16)]


def test_named_batches_are_as_transformers_takes_them(texts: Path) -> None:
    sample = text_files(texts, context_length=10, vocab_size=280, named=True).train[0]
    assert sorted(sample) == ["input_ids", "labels"]


@pytest.mark.parametrize(
    "options", [(), ("data.kind=characters", "data.documents=line", "data.packed=false"), ("data.tokenizer=own.json",)]
)
def test_the_model_gets_the_vocabulary_that_the_tokenizer_really_has(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(texts.parent)
    train_tokenizer(["This is one"], vocab_size=5000).save("own.json")
    done(capsys, "train", "data=files", "data.path=texts", "name=run", *QUICK, *options)
    run = darkit.load("run")
    from darkit.core import Predicter

    size = Predicter.get_tokenizer("run").get_vocab_size()
    assert run.config["vocab_size"] == size != 2048
    assert run.info["data"]["split"]["train"] > 0
    assert f"vocab_size: {size}" in (run.path / "config.yaml").read_text()
    done(capsys, "train", "resume=run", "trainer.max_step=6")
    assert run.details.step == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("data.path=null",), "data.path must say where the data is: a file, a folder or a pattern."),
        (("data.path=nope",), "There is no file nope"),
        (("data.path=empty.txt",), "The file empty.txt is empty."),
        (("data.path=bytes.txt",), "The file bytes.txt is not UTF-8 text: byte 0xff at offset 4"),
        (("data.path=texts", "data.tokenizer=plain.json"), "The tokenizer has no end token"),
        (("data.path=texts", "model.config.vocab_size=12"), "12"),
        (("data.path=texts", "model.config.context_length=8"), "8"),
    ],
)
def test_what_is_wrong_is_said_before_the_training_and_leaves_no_run(
    texts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(texts.parent)
    Path("empty.txt").write_text("")
    Path("bytes.txt").write_bytes(b"text\xff")
    train_tokenizer(["a"], special_tokens=["<x>"]).save("plain.json")
    assert said in refused(capsys, "train", "data=files", "name=run", *QUICK, *options)
    assert not darkit.runs()
