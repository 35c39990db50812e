"""Prepared text: tokenized once, split and written as shards, in a folder named by a hash of all inputs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from darkit.data.locks import locked
from darkit.data.sources.source import Record, Source, open_source, text_of
from darkit.data.sources.splits import TRAIN, VAL, Split, split_records
from darkit.data.text.shards import PartFacts, ShardWriter, TokenStore
from darkit.data.text.tokenizers import (
    USES,
    backend_of,
    encode_batch,
    load_tokenizer,
    needed_token,
    special_token,
    train_tokenizer,
    vocabulary_size,
)
from darkit.data.text.windows import unigram_cross_entropy
from darkit.errors import DataError
from darkit.runs import files
from darkit.runs.home import home

MANIFEST = "data.json"
TRAIN_PART, VAL_PART = "train", "val"
_FORMAT = 1
_BLOCK = 2_000_000  # characters that are tokenized together
_PARTS = ((TRAIN_PART, TRAIN), (VAL_PART, VAL))


@dataclass(frozen=True)
class Prepared:
    """Prepared data.

    Attributes:
        folder: Its folder.
        tokenizer: Its tokenizer.
        meta: The manifest: key, time, vocabulary, options, split, parts and baseline.
        train: The training part.
        val: The validation part, or None.
    """

    folder: Path
    tokenizer: Any
    meta: dict[str, Any]
    train: TokenStore
    val: TokenStore | None

    @property
    def vocabulary(self) -> int:
        """Tokens in the vocabulary."""
        return int(self.meta["vocabulary"])

    @property
    def facts(self) -> dict[str, Any]:
        """The data facts for ``run.json``."""
        return {"prepared": self.folder.name, "split": self.meta["split"]}


def cache_folder() -> Path:
    """Return the folder of prepared data: ``data`` in the home."""
    return home() / "data"


def prepare(
    where: Any,
    tokenizer: Any = None,
    *,
    kind: str = "bpe",
    vocab_size: int = 2048,
    special_tokens: Sequence[str] | None = None,
    field: str = "text",
    documents: str = "file",
    split: str = "train",
    val_fraction: float = 0.1,
    val_files: str | Sequence[str] | None = None,
    seed: int = 0,
    end_of_text: bool = True,
    cache: Path | None = None,
) -> Prepared:
    """Tokenize text into shards, or open those of an earlier call with the same content and options.

    Args:
        where: The text, as for `darkit.data.open_source`.
        tokenizer: As for `darkit.data.load_tokenizer`; None trains one on the training part.
        kind: Kind of a trained tokenizer; see `darkit.data.train_tokenizer`.
        vocab_size: Its maximum vocabulary size.
        special_tokens: Its special tokens; None takes the default of the kind.
        field: The field with the text.
        documents: Unit of a text file: ``file``, ``paragraph`` or ``line``.
        split: The split of a Hugging Face dataset.
        val_fraction: Fraction of the characters held out for validation; 0 holds out none.
        val_files: Names or patterns of the validation files instead.
        seed: Seed of the split.
        end_of_text: Append the end-of-text token to each document.
        cache: The folder of prepared data; None takes `cache_folder`.

    Raises:
        DataError: The text, the tokenizer or the split is invalid.
        StorageError: The file system refused. Earlier data stays complete.
    """
    source = open_source(where, fields=(field,), documents=documents, split=split)
    fingerprint = source.fingerprint()
    source = dataclasses.replace(source, digest=lambda: fingerprint)  # a large file is hashed once
    found = None if tokenizer is None else load_tokenizer(tokenizer)
    if found is not None and end_of_text:
        needed_token(found, "end", "text of several documents")
    training = {"kind": kind, "vocab_size": vocab_size, "special_tokens": special_tokens and list(special_tokens)}
    options = {"field": field, "documents": documents, "end_of_text": end_of_text}
    choice: dict[str, Any] = {"val_fraction": val_fraction, "val_files": val_files, "seed": seed}
    named = [source.files] if val_files else []  # a split by file depends on their names
    depends_on = [_FORMAT, fingerprint, named, _describe(found) if found is not None else training, options, choice]
    key = hashlib.sha256(json.dumps(depends_on, default=str).encode()).hexdigest()[:20]
    root = cache_folder() if cache is None else cache
    folder = root / key
    if not _is_complete(folder):
        with _exclusively(root, key) as temporary:
            if not _is_complete(folder):
                _Preparation(source, field, split_records(source, **choice), end_of_text).write(
                    temporary, key, found, training, options
                )
                _replace(temporary, folder)
    return open_prepared(folder)


def open_prepared(folder: Path) -> Prepared:
    """Open prepared data.

    Raises:
        DataError: It does not exist or is damaged.
    """
    meta = files.read_json(folder / MANIFEST)
    if meta.get("format") != _FORMAT:
        raise DataError(f"There is no prepared data in {folder}.")
    stores = {
        part: TokenStore(folder, part, PartFacts(**facts), meta["vocabulary"]) for part, facts in meta["parts"].items()
    }
    where = folder / files.TOKENIZER_FOLDER
    tokenizer = load_tokenizer(where if where.is_dir() else folder / files.TOKENIZER)
    return Prepared(folder, tokenizer, meta, stores[TRAIN_PART], stores.get(VAL_PART))


class _Preparation:
    """The preparation of one source with its split."""

    def __init__(self, source: Source, field: str, split: Split, end_of_text: bool) -> None:
        self._source, self._field, self._split, self._ends = source, field, split, end_of_text

    def write(self, folder: Path, key: str, tokenizer: Any, training: dict[str, Any], options: dict[str, Any]) -> None:
        """Write all files into a folder, the manifest last."""
        if tokenizer is None:
            texts = (text_of(record, self._field) for record in self._split.records(self._source, TRAIN))
            tokenizer = train_tokenizer(texts, **training)
        end = needed_token(tokenizer, "end", "text of several documents") if self._ends else None
        vocabulary = vocabulary_size(tokenizer)
        writers = {part: ShardWriter(folder, part, vocabulary) for part, _ in _PARTS}
        self._tokenize(tokenizer, end, {number: writers[part] for part, number in _PARTS})
        described = {part: writer.close() for part, writer in writers.items()}
        if not described[VAL_PART].documents:
            for path in folder.glob(f"{VAL_PART}*"):
                path.unlink()
            del described[VAL_PART]
        _save_tokenizer(folder, tokenizer)
        baseline = unigram_cross_entropy(writers[TRAIN_PART].counts, writers[VAL_PART].counts)
        manifest = {
            "format": _FORMAT,
            "key": key,
            "time": time.time(),
            "files": list(self._source.files),
            "vocabulary": vocabulary,
            "options": options,
            "split": self._split.facts,
            "parts": {part: dataclasses.asdict(facts) for part, facts in described.items()},
            "unigram": None if math.isnan(baseline) else baseline,
        }
        files.write_json(folder / MANIFEST, manifest)

    def _tokenize(self, tokenizer: Any, end: int | None, writers: dict[int, ShardWriter]) -> None:
        with _bar(len(self._split.parts)) as advance:
            for block in self._blocks():
                rows = encode_batch(tokenizer, [text for _, text in block])
                if end is not None:
                    for row in rows:
                        row.append(end)
                for part, writer in writers.items():
                    mine = [number for number, (where, _) in enumerate(block) if where == part]
                    characters = sum(len(block[number][1]) for number in mine)
                    writer.add([rows[number] for number in mine], characters)
                advance(len(block))

    def _blocks(self) -> Iterator[list[tuple[int, str]]]:
        """Yield the documents in blocks, each with its part."""
        block: list[tuple[int, str]] = []
        size = 0
        records: Iterator[tuple[Any, Record]] = zip(self._split.parts, self._source.records(), strict=True)
        for part, record in records:
            text = text_of(record, self._field)
            block.append((int(part), text))
            size += len(text)
            if size >= _BLOCK:
                yield block
                block, size = [], 0
        if block:
            yield block


def _describe(tokenizer: Any) -> list[Any]:
    """Return values that are equal for tokenizers with the same encoding and uses of special tokens."""
    backend = backend_of(tokenizer)
    content = sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str()
    return [type(tokenizer).__name__, content, [special_token(tokenizer, use) for use in USES]]


def _save_tokenizer(folder: Path, tokenizer: Any) -> None:
    if callable(getattr(tokenizer, "save_pretrained", None)):
        tokenizer.save_pretrained(folder / files.TOKENIZER_FOLDER)
    else:
        files.write_text(folder / files.TOKENIZER, tokenizer.to_str(pretty=True) + "\n")


def _is_complete(folder: Path) -> bool:
    """Return whether prepared data is complete; damaged data is prepared again."""
    if not folder.is_dir():
        return False
    try:
        open_prepared(folder)
    except (DataError, KeyError, TypeError):
        return False
    return True


@contextmanager
def _exclusively(root: Path, key: str) -> Iterator[Path]:
    """Wait until no other process prepares the same data; yield a temporary folder, deleted afterwards."""
    with files.storage_errors(f"prepare data in {root}"):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{key}.lock"):
            temporary = root / f".{key}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
            temporary.mkdir()
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, folder: Path) -> None:
    files.sync_folder(temporary)
    if folder.exists():
        shutil.rmtree(folder)  # it was damaged
    os.replace(temporary, folder)
    files.sync_folder(folder.parent)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress in documents at a terminal."""
    columns = (TextColumn("tokenizing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)
