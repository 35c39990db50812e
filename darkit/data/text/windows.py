"""A row of tokens in windows, packed one after the other or document by document."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from darkit.data.collate import IGNORED, Pad
from darkit.errors import DataError


class TokenRow:
    """Documents as one row of tokens in memory, read as the memory-mapped `darkit.data.text.shards.TokenStore` is.

    Args:
        documents: The ids of each document.
        vocabulary: Tokens in the vocabulary; None takes what the ids need.

    Attributes:
        bounds: Where each document begins in the row, and at last where the row ends (documents + 1).
        vocabulary: Tokens in the vocabulary.
    """

    def __init__(self, documents: Iterable[Sequence[int] | Tensor], vocabulary: int | None = None) -> None:
        rows = [torch.as_tensor(document, dtype=torch.int32) for document in documents]
        self._row = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int32)
        self.bounds = numpy.cumsum([0, *map(len, rows)])
        self.vocabulary = vocabulary or (int(self._row.max()) + 1 if len(self._row) else 0)

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.bounds) - 1

    def __len__(self) -> int:
        return len(self._row)

    def tokens(self, first: int, end: int) -> Any:
        """Return ids (end - first) as an array."""
        return self._row[first:end].numpy()

    def document(self, index: int) -> Any:
        """Return the ids of a document as an array."""
        return self.tokens(int(self.bounds[index]), int(self.bounds[index + 1]))


class Pieces:
    """Pieces of a row of tokens, each of a size but the last of a document.

    Args:
        tokens: A `TokenRow`, a memory-mapped store of tokens, or a tensor of ids.
        size: Tokens per piece at most.
        overlap: How many tokens at the end of a piece begin the next one too; a document with no more has no piece.
        packed: Whether the row is cut as if it were one document.
    """

    def __init__(self, tokens: Any, size: int, *, overlap: int = 0, packed: bool = False) -> None:
        self.tokens, self.size, self.overlap = tokens, size, overlap
        self._bounds = numpy.array([0, len(tokens)]) if packed else numpy.asarray(tokens.bounds)
        step = size - overlap
        counts = numpy.maximum(0, -(-(numpy.diff(self._bounds) - overlap) // step))
        self._ends = numpy.cumsum(counts)  # how many pieces there are up to the end of each document
        self._counts = counts

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int) -> tuple[int, int, int]:
        """Return the document of a piece, where in the row it begins, and where it ends."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        document = int(numpy.searchsorted(self._ends, index, side="right"))
        number = index - int(self._ends[document] - self._counts[document])
        first = int(self._bounds[document]) + number * (self.size - self.overlap)
        return document, first, min(first + self.size, int(self._bounds[document + 1]))

    def places(self) -> NDArray[numpy.int64]:
        """Return what `place` does for every piece (pieces, 3)."""
        documents = numpy.repeat(numpy.arange(len(self._counts)), self._counts)
        numbers = numpy.arange(len(self)) - (self._ends - self._counts)[documents]
        firsts = self._bounds[documents] + numbers * (self.size - self.overlap)
        ends = numpy.minimum(firsts + self.size, self._bounds[documents + 1])
        return numpy.stack([documents, firsts, ends], axis=1).astype(numpy.int64)

    def __getitem__(self, index: int) -> Tensor:
        _, first, end = self.place(index)
        return read_tokens(self.tokens, first, end)


class _Windows(Dataset[Any]):
    """What both kinds of windows have in common.

    Args:
        tokens: A row of tokens.
        length: Tokens per window.
        named: Whether a sample is the dict that transformers' models take.
        facts: What ``run.json`` tells of the data.
    """

    task = "causal"

    def __init__(self, tokens: Any, length: int, named: bool, facts: Mapping[str, Any] | None) -> None:
        self.tokens = tokens
        self.length = length
        self.named = named
        self.size = window_size(length, named)
        self.facts = dict(facts or {})

    @property
    def vocabulary(self) -> int:
        """The largest id and one."""
        return int(self.tokens.max()) + 1 if isinstance(self.tokens, Tensor) else int(self.tokens.vocabulary)

    @property
    def context_length(self) -> int:
        """Tokens that a model sees of a window."""
        return self.length


class TokenWindows(_Windows):
    """Fixed windows over a row of tokens, each token but the first a target exactly once.

    Args:
        tokens: Ids (tokens), or a store of tokens, whose documents are packed one after the other.
        length: Tokens per window.
        pad: What the last window is filled up with, where nothing is asked for (-100); None leaves a rest that fills no
            window out.
        named: Whether a sample is ``{"input_ids", "labels"}`` with the same ids in both, as transformers' models take
            it, instead of tokens (length) and the ones that come next (length).
        facts: What ``run.json`` tells of the data.

    Raises:
        DataError: The length is below 1 (2 with ``named``), or there are too few tokens for one window.
    """

    def __init__(
        self,
        tokens: Any,
        length: int,
        *,
        pad: int | None = None,
        named: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(tokens, length, named, facts)
        self.pad = pad
        if len(tokens) < (self.size if pad is None else 2):
            raise DataError(f"{len(tokens)} tokens are too few for one window of {length} tokens and its target.")

    def __len__(self) -> int:
        full, rest = divmod(len(self.tokens) - 1, self.size - 1)
        return full + (rest > 0 and self.pad is not None)

    def __getitem__(self, index: int) -> Any:
        """Return tokens (length) and the ones that come next (length), or a dict with both."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = index * (self.size - 1)
        window = read_tokens(self.tokens, first, min(first + self.size, len(self.tokens)))
        sample = window_sample(window, self.named)
        return sample if self.pad is None else filled(sample, self.length, self.pad)


class DocumentWindows(_Windows):
    """Windows that never go over the end of a document; one that is longer goes into several.

    Each token but the first of a document is a target exactly once. Samples have their own lengths, and the batch is
    padded.

    Args:
        tokens: A `TokenRow` or a memory-mapped store of tokens.
        length: Tokens per window at most.
        pad: The id to pad inputs with; targets are padded with -100.
        fixed: Whether to pad to ``length`` instead of to the longest of the batch.
        multiple_of: Of what the padded length is a multiple, as far as ``length`` allows.
        named: As for `TokenWindows`.
        facts: What ``run.json`` tells of the data.

    Raises:
        DataError: The length is below 1 (2 with ``named``), or no document has two tokens.
    """

    def __init__(
        self,
        tokens: Any,
        length: int,
        *,
        pad: int = 0,
        fixed: bool = False,
        multiple_of: int = 1,
        named: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(tokens, length, named, facts)
        self.pieces = Pieces(tokens, self.size, overlap=1)
        self.collate_fn = Pad(pad, length=length if fixed else None, multiple_of=multiple_of, most=length)
        if not len(self.pieces):
            raise DataError("No document has two tokens: there is nothing to predict.")

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Any:
        """Return tokens and the ones that come next, at most ``length`` of each, or a dict with both."""
        return window_sample(self.pieces[index], self.named)


def window_size(length: int, named: bool) -> int:
    """Return the number of tokens to read for a window; it shares the last one with the next. Raises `DataError`."""
    least = 2 if named else 1  # transformers' models shift the labels themselves, which costs one token
    if length < least:
        raise DataError(f"A window must have {least} token{'s'[: least - 1]} at least, not {length}.")
    return length if named else length + 1


def window_sample(window: Tensor, named: bool) -> Any:
    """Return the tokens of a window and the next tokens, or a dict for transformers' models."""
    return {"input_ids": window, "labels": window} if named else (window[:-1], window[1:])


def sample_room(length: int, added: int) -> int:
    """Return the number of text tokens in a sample with added special tokens. Raises `DataError` if none is left."""
    if length <= added:
        raise DataError(f"A sample must have {added + 1} tokens at least, not {length}.")
    return length - added


def read_tokens(tokens: Any, first: int, end: int) -> Tensor:
    """Read ids (end - first) of a tensor or of a store, as int64."""
    if isinstance(tokens, Tensor):
        return tokens[first:end].long()
    return torch.from_numpy(numpy.asarray(tokens.tokens(first, end)).astype(numpy.int64))


def filled(sample: Any, length: int, pad: int) -> Any:
    """Fill a sample of windows up to a length: inputs with ``pad``, and what is asked for with -100."""
    inputs, targets = sample.values() if isinstance(sample, dict) else sample
    missing = length - len(inputs)
    if not missing:
        return sample
    inputs = torch.nn.functional.pad(inputs, (0, missing), value=pad)
    targets = torch.nn.functional.pad(targets, (0, missing), value=IGNORED)
    return {"input_ids": inputs, "labels": targets} if isinstance(sample, dict) else (inputs, targets)


def unigram_cross_entropy(train: NDArray[numpy.int64], val: NDArray[numpy.int64]) -> float:
    """Return the cross-entropy in nats per token of a model that knows only how frequent each token is.

    Args:
        train: How often each token occurs in what is trained on (vocabulary); each counts once more (Laplace's
            smoothing).
        val: How often each occurs in what is predicted (vocabulary). If none does, the result is NaN.
    """
    smoothed = train.astype(numpy.float64) + 1
    total = int(val.sum())
    return float(-(numpy.log(smoothed / smoothed.sum()) * val).sum() / total) if total else math.nan
