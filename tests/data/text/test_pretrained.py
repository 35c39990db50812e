"""Tokenizers that transformers saved run no code of their own and read no file elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from darkit.core import Predicter
from darkit.data import load_tokenizer
from darkit.data.text.pretrained import run_tokenizer
from darkit.errors import ConfigError, DataError
from tests.core.parts import Loop, LoopConfig, byte_tokenizer, net, samples

CODE = "import pathlib\npathlib.Path({canary!r}).touch()\nclass Own: pass\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a transformers tokenizer."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), eos_token="!")
    loop = Loop(net(), tokenizer, LoopConfig(name="run", max_step=1))
    loop.train(samples(4))
    return loop.save_directory


def plant(run: Path, canary: Path, name: str = "tokenizer_config.json", **facts: Any) -> None:
    folder = run / "tokenizer"
    (folder / "own.py").write_text(CODE.format(canary=str(canary)))
    path = folder / name
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | facts))


HOSTILE: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}},
    "an old auto_map": {"auto_map": ["own.Own", None]},
    "another repository": {"auto_map": {"AutoTokenizer": [None, "somebody/else--own.Own"]}, "tokenizer_class": "Own"},
    "a nonsense auto_map": {"auto_map": 3},
    "in config.json": {"name": "config.json", "model_type": "x", "auto_map": {"AutoTokenizer": [None, "own.Own"]}},
    "a model's class": {"tokenizer_class": "GPT2LMHeadModel"},
    "a function": {"tokenizer_class": "pipeline"},
    "no class": {"tokenizer_class": ["x"]},
    "a file elsewhere": {"vocab_file": "/etc/passwd"},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_tokenizer_with_code_of_its_own_is_refused_in_a_sentence(
    run: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    plant(run, canary, **HOSTILE[kind])
    with pytest.raises(ConfigError, match=r"The tokenizer of the run 'run' cannot be loaded: ") as caught:
        Predicter.from_pretrained("run", "cpu").predict("text")
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    assert "own" not in sys.modules
    if "vocab_file" not in HOSTILE[kind]:
        with pytest.raises(DataError, match=r"tokenizer is not a valid tokenizer"):
            load_tokenizer(run / "tokenizer")
        assert not canary.exists()


def test_ones_own_tokenizer_may_be_given_instead(run: Path, tmp_path: Path) -> None:
    plant(run, tmp_path / "canary", auto_map={"AutoTokenizer": ["own.Own", None]})
    predicter = Predicter.from_pretrained("run", "cpu")
    predicter.tokenizer = byte_tokenizer()
    assert predicter.tokenizer.encode("a").ids


@pytest.mark.parametrize("name", ["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "tokenizer"])
def test_links_are_not_followed(run: Path, tmp_path: Path, name: str) -> None:
    path = run / name
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(ConfigError, match="is a link"):
        run_tokenizer(run)


@pytest.mark.parametrize("content", [b"not json", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_tokenizer_is_refused_in_a_sentence(run: Path, content: bytes) -> None:
    for path in (run / "tokenizer").iterdir():
        path.unlink()
    (run / "tokenizer").rmdir()
    assert isinstance(run_tokenizer(run), Tokenizer)
    (run / "tokenizer.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"The tokenizer of the run 'run' cannot be loaded: [^\n]*$"):
        run_tokenizer(run)
    (run / "tokenizer.json").unlink()
    assert run_tokenizer(run) is None


def test_a_tokenizer_without_code_is_loaded_as_ever(run: Path) -> None:
    found = run_tokenizer(run)
    assert isinstance(found, PreTrainedTokenizerFast)
    assert found.eos_token == "!"
