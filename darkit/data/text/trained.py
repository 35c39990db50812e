"""Tokenizers that are trained once and shared by all later calls and processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from darkit.data.locks import locked
from darkit.data.text.tokenizers import load_tokenizer, train_tokenizer
from darkit.runs import files
from darkit.runs.home import home

_FORMAT = 1


def trained_folder() -> Path:
    """Return the folder of trained tokenizers: ``tokenizers`` in the home."""
    return home() / "tokenizers"


def trained_tokenizer(
    texts: Callable[[], Iterable[str]], kind: str, vocab_size: int, special_tokens: Sequence[str] | None = None
) -> Tokenizer:
    """Train a tokenizer, or load that of an earlier call with the same texts and options.

    Training ``unigram`` is not deterministic, but all processes of a run, and the resumed run, need the same tokenizer.

    Args:
        texts: Returns the training texts; they are read twice.
        kind: As for `darkit.data.train_tokenizer`.
        vocab_size: Likewise.
        special_tokens: Likewise.

    Raises:
        DataError: It cannot be trained, or the file of the earlier one is damaged.
        StorageError: The file system refused.
    """
    options = [_FORMAT, kind, vocab_size, None if special_tokens is None else list(special_tokens)]
    digest = hashlib.sha256(json.dumps(options).encode())
    for text in texts():
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    path = trained_folder() / f"{digest.hexdigest()[:20]}.json"
    with files.storage_errors(f"keep a tokenizer in {path.parent}"):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_name(f".{path.stem}.lock")):
                if not path.is_file():
                    files.write_text(path, train_tokenizer(texts(), kind, vocab_size, special_tokens).to_str() + "\n")
    found: Tokenizer = load_tokenizer(path)
    return found
