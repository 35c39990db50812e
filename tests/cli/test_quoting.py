"""Paths and names on the command line that Hydra's grammar does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import given
from hypothesis import strategies as st

from darkit.cli.arguments import prepare
from darkit.cli.compose import compose_data
from darkit.cli.quoting import with_text_quoted
from tests.cli.parts import refused


def parsed(word: str, *, sweep: bool = False) -> Override:
    return OverridesParser.create().parse_override(with_text_quoted(word, sweep=sweep))


@pytest.mark.parametrize(
    "path",
    [
        "~/texts",
        "~somebody/texts",
        "~",
        "./my texts (1)/a.txt",
        "a=b",
        "a,b.txt",
        "x[1].txt",
        "x{2}.txt",
        "a'b",
        'a"b',
        "#1 & 2; 3!",
        "文本/数据.txt",
        "C:\\texts\\new folder\\",
        "1e-3",
        "007",
        "true",
        "10",
        "a'\\",
        "hf:NAME",
        "*.txt",
        "$HOME/texts",
    ],
)
@pytest.mark.parametrize("key", ["data.path", "+data.val_path", "++data.tokenizer", "data.out_dir"])
def test_a_path_is_read_as_it_was_written(key: str, path: str) -> None:
    assert parsed(f"{key}={path}").value() == path


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$\\()[]{}'\""), min_size=1))
def test_any_text_without_hydras_signs_is_a_path_as_it_was_written(path: str) -> None:
    if path.lower() != "null":
        assert parsed(f"data.path={path}").value() == (path if path.strip(" \t") == path else parsed_strip(path))


def parsed_strip(path: str) -> str:
    """What is around text is Hydra's to take away, if the text needs no quotes."""
    read = parsed(f"data.path={path}").value()
    assert read in (path, path.strip(" \t"))
    return str(read)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("null", None),
        ("", ""),
        ("'a b'", "a b"),
        ('"~/x"', "~/x"),
        ("${oc.env:HOME}/x", "${oc.env:HOME}/x"),
        ("[a,b]", ["a", "b"]),
        ("['a b',c]", ["a b", "c"]),
        ("[~/a, b c,1e-3]", ["~/a", "b c", "1e-3"]),
        ("[]", []),
        ("{a:1}", {"a": 1}),
    ],
)
def test_hydras_own_syntax_keeps_its_meaning(value: str, read: object) -> None:
    assert parsed(f"data.path={value}").value() == read


def test_a_sweep_over_paths_is_one() -> None:
    for value, members in (
        ("a,b", ["a", "b"]),
        ("~/a,~/b c", ["~/a", "~/b c"]),
        ("choice(a,b)", ["a", "b"]),
        ("~/a", None),
    ):
        override = parsed(f"data.path={value}", sweep=True)
        assert override.is_sweep_override() == (members is not None)
        if members is not None:
            assert [str(getattr(item, "text", item)) for item in override.value().list] == members


def test_other_words_stay() -> None:
    words = ["~data.path", "~trainer", "trainer.lr=1e-3", "model.text=~x", "data=files", "data.pathology=~x"]
    assert prepare(words) == words
    assert prepare(["trainer.name=1e-3"]) == ["trainer.name='1e-3'"]


def test_a_home_is_found_and_one_that_is_not_there_is_one_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sentence = refused(capsys, "train", "data=files", "data.path=~/no such folder/a=1.txt")
    assert sentence.startswith(f"There is no file {tmp_path}/no such folder/a=1.txt")
    sentence = refused(capsys, "train", "data=files", "data.path=~nobody-of-this-name/texts.txt")
    assert sentence.startswith("There is no file ~nobody-of-this-name/texts.txt")


@pytest.mark.parametrize(
    ("value", "read"), [("~/x", "~/x"), ("1e-3", "1e-3"), ("a: b", "a: b"), ("[a,~/b]", ["a", "~/b"]), ("null", None)]
)
def test_eval_reads_a_path_as_train_does(value: str, read: object) -> None:
    settings = compose_data({"path": "x", "seed": 0}, None, [f"path={value}", "seed=3"])
    assert (settings.path, settings.seed) == (read, 3)
