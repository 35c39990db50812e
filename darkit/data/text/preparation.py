"""Text made ready once: tokenised, split and written as shards, under a name that is made of all it depends on."""

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
from darkit.errors import DataError, StorageError
from darkit.runs import files
from darkit.runs.home import home

MANIFEST = "data.json"
TRAIN_PART, VAL_PART = "train", "val"
_FORMAT = 1
_BLOCK = 2_000_000  # characters that are tokenised together
_PARTS = ((TRAIN_PART, TRAIN), (VAL_PART, VAL))


@dataclass(frozen=True)
class Prepared:
    """Prepared data.

    Attributes:
        folder: Where it is.
        tokenizer: The tokenizer it was made with.
        meta: The manifest: key, time, vocabulary, options, split, parts and baseline.
        train: The part to train on.
        val: The part to evaluate on, or None.
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
        """What ``run.json`` tells of the data."""
        return {"prepared": self.folder.name, "split": self.meta["split"]}


def cache_folder() -> Path:
    """Return where prepared data is kept: ``data`` in the home."""
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
    """Tokenize text into shards, or finds what an earlier call with the same content and options left.

    Args:
        where: The text, as `darkit.data.open_source` takes it.
        tokenizer: As `darkit.data.load_tokenizer` takes it; None trains one on the part to train on.
        kind: Which one is trained; see `darkit.data.train_tokenizer`.
        vocab_size: Of how many tokens at most.
        special_tokens: With which special tokens; None takes what the kind usually has.
        field: The field that holds the text.
        documents: What a document of a text file is: ``file``, ``paragraph`` or ``line``.
        split: Which split of a Hugging Face dataset.
        val_fraction: About which part of the characters to evaluate on; 0 makes no such part.
        val_files: The files to evaluate on instead.
        seed: Seed of the split.
        end_of_text: Whether the end-of-text token stands after each document.
        cache: Where prepared data is kept; None takes `cache_folder`.

    Raises:
        DataError: The text, the tokenizer or the split is not as it must be.
        StorageError: The file system refused. What was there before is whole.
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
    if not _is_whole(folder):
        with _only_one(root, key) as temporary:
            if not _is_whole(folder):
                _Preparation(source, field, split_records(source, **choice), end_of_text).write(
                    temporary, key, found, training, options
                )
                _take_place(temporary, folder)
    return open_prepared(folder)


def open_prepared(folder: Path) -> Prepared:
    """Open prepared data.

    Raises:
        DataError: There is none, or it is damaged.
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
    """One preparation: what is read, how it is split, and whether documents have an end."""

    def __init__(self, source: Source, field: str, split: Split, end_of_text: bool) -> None:
        self._source, self._field, self._split, self._ends = source, field, split, end_of_text

    def write(self, folder: Path, key: str, tokenizer: Any, training: dict[str, Any], options: dict[str, Any]) -> None:
        """Write everything into a folder, the manifest last."""
        if tokenizer is None:
            texts = (text_of(record, self._field) for record in self._split.records(self._source, TRAIN))
            tokenizer = train_tokenizer(texts, **training)
        end = needed_token(tokenizer, "end", "text of several documents") if self._ends else None
        vocabulary = vocabulary_size(tokenizer)
        writers = {part: ShardWriter(folder, part, vocabulary) for part, _ in _PARTS}
        self._tokenise(tokenizer, end, {number: writers[part] for part, number in _PARTS})
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
            "parts": {part: facts.as_dict() for part, facts in described.items()},
            "unigram": None if math.isnan(baseline) else baseline,
        }
        files.write_json(folder / MANIFEST, manifest)

    def _tokenise(self, tokenizer: Any, end: int | None, writers: dict[int, ShardWriter]) -> None:
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
        """Iterate over the documents in blocks, each with its part."""
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
    """Return what two tokenizers share if they encode alike and their special tokens are for the same."""
    backend = backend_of(tokenizer)
    content = sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str()
    return [type(tokenizer).__name__, content, [special_token(tokenizer, use) for use in USES]]


def _save_tokenizer(folder: Path, tokenizer: Any) -> None:
    if callable(getattr(tokenizer, "save_pretrained", None)):
        tokenizer.save_pretrained(folder / files.TOKENIZER_FOLDER)
    else:
        files.write_text(folder / files.TOKENIZER, tokenizer.to_str(pretty=True) + "\n")


def _is_whole(folder: Path) -> bool:
    """Return whether prepared data is there with every byte it should have; what is damaged is prepared again."""
    if not folder.is_dir():
        return False
    try:
        open_prepared(folder)
    except (DataError, KeyError, TypeError):
        return False
    return True


@contextmanager
def _only_one(root: Path, key: str) -> Iterator[Path]:
    """Wait until no other process prepares the same, and gives an empty folder that is gone afterwards."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{key}.lock"):
            temporary = root / f".{key}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
            temporary.mkdir()
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(error.errno, f"Cannot prepare data in {root}: {error.strerror or error}.") from error


def _take_place(temporary: Path, folder: Path) -> None:
    files.sync_folder(temporary)
    if folder.exists():
        shutil.rmtree(folder)  # it was damaged
    os.replace(temporary, folder)
    files.sync_folder(folder.parent)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show how many documents are done, at a terminal."""
    columns = (TextColumn("tokenising"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)
