"""A tokenizer is trained once, and whoever asks for it gets that one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from darkit.data.text.trained import trained_folder, trained_tokenizer
from darkit.errors import DataError, StorageError

TEXTS = [f"The {word} of the {other} is read." for word in ("file", "loop", "name") for other in ("test", "call")]
SCRIPT = """
from tests.data.text.test_trained import TEXTS
from darkit.data.text.trained import trained_tokenizer
print(trained_tokenizer(lambda: TEXTS, "unigram", 290).to_str())
"""


def test_all_processes_get_the_same_one_though_each_training_differs(python: str) -> None:
    command = [python, "-c", SCRIPT]
    folder = Path(__file__).parents[3]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) for _ in range(2)]
    try:
        said = [process.communicate(timeout=120)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert said == [trained_tokenizer(lambda: iter(TEXTS), "unigram", 290).to_str()] * 2
    assert len(list(trained_folder().iterdir())) == 1


def test_other_texts_or_options_have_their_own() -> None:
    trained_tokenizer(lambda: TEXTS, "bpe", 290)
    trained_tokenizer(lambda: TEXTS[1:], "bpe", 290)
    trained_tokenizer(lambda: ["".join(TEXTS[:2]), *TEXTS[2:]], "bpe", 290)
    trained_tokenizer(lambda: TEXTS, "bpe", 291)
    trained_tokenizer(lambda: TEXTS, "bpe", 290, ["<x>"])
    assert len(list(trained_folder().iterdir())) == 5


def test_what_cannot_be_trained_leaves_nothing() -> None:
    with pytest.raises(DataError, match="vocab_size must be at least"):
        trained_tokenizer(lambda: TEXTS, "bpe", 3)
    assert list(trained_folder().iterdir()) == []


def test_a_home_that_cannot_be_written_to_is_one_sentence(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    trained_folder().write_text("no folder")
    with pytest.raises(StorageError, match=r"^Cannot keep a tokenizer in .*tokenizers: .*\.$"):
        trained_tokenizer(lambda: TEXTS, "bpe", 290)
