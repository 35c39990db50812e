"""Text in memory: read, split, and encoded document by document with a tokenizer that has seen the training part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from darkit.data.sources.source import Record, Source, open_source, text_of
from darkit.data.sources.splits import TRAIN, VAL, Split, split_records
from darkit.data.text.specials import add_marks
from darkit.data.text.tokenizers import encode_batch, load_tokenizer, vocabulary_size
from darkit.data.text.trained import trained_tokenizer
from darkit.data.text.windows import TokenRow
from darkit.errors import DataError

_BLOCK = 1024  # texts that are encoded together


@dataclass(frozen=True)
class Parts:
    """A source and where its records go.

    Attributes:
        source: The records.
        split: Which are trained on, and which are for evaluation.
    """

    source: Source
    split: Split

    def records(self, part: int) -> Iterator[Record]:
        """Reads the records of a part."""
        return self.split.records(self.source, part)

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` tells of them."""
        return {"files": list(self.source.files[:16]), "split": self.split.facts}


def read_parts(
    where: Any,
    fields: Sequence[str],
    *,
    val_fraction: float,
    val_files: str | Sequence[str] | None,
    seed: int,
    documents: str = "file",
    split: str = "train",
    by: Sequence[str] | None = None,
) -> Parts:
    """Opens a source and splits it; see `open_source` and `split_records`. Raises `DataError`."""
    if where is None:
        raise DataError("data.path must say where the data is: a file, a folder or a pattern.")
    source = open_source(where, fields=fields, documents=documents, split=split)
    return Parts(source, split_records(source, val_fraction=val_fraction, val_files=val_files, seed=seed, by=by))


def find_tokenizer(
    tokenizer: Any,
    texts: Callable[[], Iterable[str]],
    *,
    kind: str,
    vocab_size: int,
    special_tokens: Sequence[str] | None = None,
) -> Any:
    """Loads the tokenizer that is meant, or one of a kind that is trained once on what ``texts`` gives.

    One that is trained with ``[CLS]`` and ``[SEP]`` puts them around a text when it is asked for special tokens, as the
    samples have them.
    """
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    trained = trained_tokenizer(texts, kind, vocab_size, special_tokens)
    add_marks(trained)
    return trained


def encode_texts(tokenizer: Any, texts: Iterable[str], ending: Sequence[int] = ()) -> TokenRow:
    """Encodes texts, each with an ending behind."""

    def rows() -> Iterator[list[int]]:
        remaining = iter(texts)
        while block := list(islice(remaining, _BLOCK)):
            yield from ([*ids, *ending] for ids in encode_batch(tokenizer, block))

    return TokenRow(rows(), vocabulary_size(tokenizer))


def texts_of(parts: Parts, part: int, field: str) -> Iterator[str]:
    """Reads a field of the records of a part."""
    return (text_of(record, field) for record in parts.records(part))


def encode_parts(parts: Parts, tokenizer: Any, field: str) -> tuple[TokenRow, TokenRow | None]:
    """Encodes a field of the training part, and of the part for evaluation where there is one."""
    train, val = (encode_texts(tokenizer, texts_of(parts, part, field)) for part in (TRAIN, VAL))
    return train, val if val.documents else None
