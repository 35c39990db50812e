"""Text in memory: read, split, and encoded document by document with a tokenizer of the training part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from darkit.data.sources.source import Record, Source, open_source, text_of
from darkit.data.sources.splits import TRAIN, VAL, Split, split_records
from darkit.data.text.specials import add_marks
from darkit.data.text.tokenizers import encode_batch, load_tokenizer, vocabulary_size
from darkit.data.text.trained import trained_tokenizer
from darkit.data.text.windows import TokenRow

_BLOCK = 1024  # texts that are encoded together


@dataclass(frozen=True)
class Parts:
    """A source and its split.

    Attributes:
        source: The records.
        split: The part of each record.
    """

    source: Source
    split: Split

    def records(self, part: int) -> Iterator[Record]:
        """Read the records of a part."""
        return self.split.records(self.source, part)

    @property
    def facts(self) -> dict[str, Any]:
        """The data facts for ``run.json``."""
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
    each: Callable[[Record], None] | None = None,
) -> Parts:
    """Open a source and split it; see `open_source` and `split_records`. Raises `DataError`.

    ``each`` is called with each record while the split reads them, so that they need not be read again.
    """
    source = open_source(where, fields=fields, documents=documents, split=split)

    def read() -> Iterator[Record]:
        for record in source.records():
            if each is not None:
                each(record)
            yield record

    chosen = split_records(replace(source, read=read), val_fraction=val_fraction, val_files=val_files, seed=seed, by=by)
    return Parts(source, chosen)


def find_tokenizer(
    tokenizer: Any,
    texts: Callable[[], Iterable[str]],
    *,
    kind: str,
    vocab_size: int,
    special_tokens: Sequence[str] | None = None,
) -> Any:
    """Load a tokenizer, or train one of ``kind`` on ``texts()`` once.

    A trained one with ``[CLS]`` and ``[SEP]`` adds them around a text with ``add_special_tokens``, as in the samples.
    """
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    trained = trained_tokenizer(texts, kind, vocab_size, special_tokens)
    add_marks(trained)
    return trained


def encode_texts(tokenizer: Any, texts: Iterable[str], ending: Sequence[int] = ()) -> TokenRow:
    """Encode texts, each followed by an ending."""

    def rows() -> Iterator[list[int]]:
        remaining = iter(texts)
        while block := list(islice(remaining, _BLOCK)):
            yield from ([*ids, *ending] for ids in encode_batch(tokenizer, block))

    return TokenRow(rows(), vocabulary_size(tokenizer))


def texts_of(parts: Parts, part: int, field: str) -> Iterator[str]:
    """Read a field of the records of a part."""
    return (text_of(record, field) for record in parts.records(part))


def encode_parts(parts: Parts, tokenizer: Any, field: str) -> tuple[TokenRow, TokenRow | None]:
    """Encode a field of the training part, and of the validation part if it is not empty."""
    train, val = (encode_texts(tokenizer, texts_of(parts, part, field)) for part in (TRAIN, VAL))
    return train, val if val.documents else None
