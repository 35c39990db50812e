"""Windows over a row of tokens, packed or document by document."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from darkit.data.collate import IGNORED, Pad, SampleRows
from darkit.data.text.shards import gather_windows
from darkit.errors import DataError


class TokenRow:
    """Documents as one row of tokens in memory, with the interface of `darkit.data.text.shards.TokenStore`.

    Args:
        documents: The ids of each document.
        vocabulary: Vocabulary size; None takes the largest id plus one.

    Attributes:
        bounds: Start of each document in the row, and finally the end of the row (documents + 1).
        vocabulary: Vocabulary size.
    """

    def __init__(self, documents: Iterable[Sequence[int] | Tensor], vocabulary: int | None = None) -> None:
        rows = [torch.as_tensor(document, dtype=torch.int32) for document in documents]
        self._row = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int32)
        self.bounds = numpy.cumsum([0, *map(len, rows)])
        self.vocabulary = vocabulary or (int(self._row.max()) + 1 if len(self._row) else 0)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.bounds) - 1

    def __len__(self) -> int:
        return len(self._row)

    def tokens(self, first: int, end: int) -> Any:
        """Return ids (end - first) as an array."""
        return self._row[first:end].numpy()

    def windows(self, firsts: Sequence[int], size: int) -> NDArray[numpy.int64]:
        """Return the ids of windows (windows, size), given their first places."""
        return gather_windows(self._row.numpy(), firsts, size)

    def document(self, index: int) -> Any:
        """Return the ids of a document as an array."""
        return self.tokens(int(self.bounds[index]), int(self.bounds[index + 1]))


class ArrayRow:
    """An array of ids as one row of tokens; one of `numpy.memmap` stays on the disk.

    Args:
        ids: Whole numbers (tokens).

    Attributes:
        vocabulary: Vocabulary size: the largest id plus one, for which all are read once.
    """

    def __init__(self, ids: NDArray[Any]) -> None:
        self._row = numpy.asarray(ids)

    def __len__(self) -> int:
        return len(self._row)

    @functools.cached_property
    def vocabulary(self) -> int:
        return int(self._row.max()) + 1 if len(self._row) else 0

    def tokens(self, first: int, end: int) -> Any:
        """Return ids (end - first) as an array."""
        return self._row[first:end]

    def windows(self, firsts: Sequence[int], size: int) -> NDArray[numpy.int64]:
        """Return the ids of windows (windows, size), given their first places."""
        return gather_windows(self._row, firsts, size)


class Pieces:
    """Pieces of a row of tokens, all of one size but the last of a document.

    Args:
        tokens: A `TokenRow`, a memory-mapped store of tokens, or a tensor of ids.
        size: Maximum tokens per piece.
        overlap: Tokens shared by consecutive pieces; a document with no more tokens has no piece.
        packed: Cut the row as if it were one document.
    """

    def __init__(self, tokens: Any, size: int, *, overlap: int = 0, packed: bool = False) -> None:
        self.tokens, self.size, self.overlap = tokens, size, overlap
        self._bounds = numpy.array([0, len(tokens)]) if packed else numpy.asarray(tokens.bounds)
        step = size - overlap
        counts = numpy.maximum(0, -(-(numpy.diff(self._bounds) - overlap) // step))
        self._ends = numpy.cumsum(counts)  # number of pieces up to the end of each document
        self._counts = counts

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int) -> tuple[int, int, int]:
        """Return the document, start and end of a piece."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        document = int(numpy.searchsorted(self._ends, index, side="right"))
        number = index - int(self._ends[document] - self._counts[document])
        first = int(self._bounds[document]) + number * (self.size - self.overlap)
        return document, first, min(first + self.size, int(self._bounds[document + 1]))

    def places(self) -> NDArray[numpy.int64]:
        """Return `place` of every piece (pieces, 3)."""
        documents = numpy.repeat(numpy.arange(len(self._counts)), self._counts)
        numbers = numpy.arange(len(self)) - (self._ends - self._counts)[documents]
        firsts = self._bounds[documents] + numbers * (self.size - self.overlap)
        ends = numpy.minimum(firsts + self.size, self._bounds[documents + 1])
        return numpy.stack([documents, firsts, ends], axis=1).astype(numpy.int64)

    def __getitem__(self, index: int) -> Tensor:
        _, first, end = self.place(index)
        return read_tokens(self.tokens, first, end)


class _Windows(Dataset[Any]):
    """Base class of both kinds of windows.

    Args:
        tokens: A row of tokens.
        length: Tokens per window.
        named: Make samples dicts for transformers' models.
        facts: Data facts for ``run.json``.
    """

    task = "causal"

    def __init__(self, tokens: Any, length: int, named: bool, facts: Mapping[str, Any] | None) -> None:
        self.tokens = as_row(tokens)
        self.length = self.context_length = length
        self.named = named
        self.size = window_size(length, named)
        self.facts = dict(facts or {})

    @property
    def vocabulary(self) -> int:
        """Vocabulary size."""
        return int(self.tokens.max()) + 1 if isinstance(self.tokens, Tensor) else int(self.tokens.vocabulary)


class TokenWindows(_Windows):
    """Fixed windows over a row of tokens, each token but the first a target exactly once.

    Args:
        tokens: Ids (tokens) as a tensor or an array, such as a `numpy.memmap`; or a store of tokens, whose documents
            are packed one after the other.
        length: Tokens per window.
        pad: Padding of the last window, without targets (-100); None drops an incomplete window.
        named: Make a sample ``{"input_ids", "labels"}`` with the same ids in both, for transformers' models, instead of
            tokens (length) and next tokens (length).
        facts: Data facts for ``run.json``.

    Raises:
        DataError: The tokens are of another kind, the length is below 1 (2 with ``named``), or there are too few tokens
            for one window.
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
        """Return tokens (length) and next tokens (length), or a dict with both."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = index * (self.size - 1)
        window = read_tokens(self.tokens, first, min(first + self.size, len(self.tokens)))
        sample = window_sample(window, self.named)
        return sample if self.pad is None else filled(sample, self.length, self.pad)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """Return the samples of a batch: all read together, which a loader collates without another copy."""
        step = self.size - 1
        full = (len(self.tokens) - 1) // step
        has_own_samples = type(self).__getitem__ is not TokenWindows.__getitem__  # of a derived class
        if (
            has_own_samples or not indices or not all(0 <= index < full for index in indices)
        ):  # a padded window, or none
            return [self[index] for index in indices]
        windows = read_windows(self.tokens, [index * step for index in indices], self.size)
        return SampleRows(window_batch(windows, self.named))


class DocumentWindows(_Windows):
    """Windows that never cross the end of a document; long documents have several.

    Each token but the first of a document is a target exactly once. Samples differ in length, and batches are padded.

    Args:
        tokens: A `TokenRow` or a memory-mapped store of tokens.
        length: Maximum tokens per window.
        pad: The padding token of inputs; targets are padded with -100.
        fixed: Pad to ``length`` instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this, up to ``length``.
        named: As for `TokenWindows`.
        facts: Data facts for ``run.json``.

    Raises:
        DataError: There are no documents, the length is below 1 (2 with ``named``), or no document has two tokens.
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
        if not hasattr(self.tokens, "bounds"):
            raise DataError(
                f"DocumentWindows needs documents, as TokenRow has, and not one row of ids, a {type(tokens).__name__}: "
                "give TokenRow(documents), or use TokenWindows."
            )
        self.pieces = Pieces(tokens, self.size, overlap=1)
        self.collate_fn = Pad(pad, length=length if fixed else None, multiple_of=multiple_of, most=length)
        if not len(self.pieces):
            raise DataError("No document has two tokens, so there is nothing to predict.")

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Any:
        """Return tokens and next tokens, at most ``length`` of each, or a dict with both."""
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


def window_batch(windows: NDArray[numpy.int64], named: bool) -> Any:
    """Return windows (windows, time) as a batch whose rows are the `window_sample` of each."""
    if named:
        return {"input_ids": torch.from_numpy(windows), "labels": torch.from_numpy(windows.copy())}
    return [torch.from_numpy(part.copy()) for part in (windows[:, :-1], windows[:, 1:])]


def sample_room(length: int, added: int) -> int:
    """Return the number of text tokens in a sample with added special tokens. Raises `DataError` if none is left."""
    if length <= added:
        raise DataError(f"A sample must have {added + 1} tokens at least, not {length}.")
    return length - added


def as_row(tokens: Any) -> Any:
    """Return a tensor or a store of tokens as it is, and an array as an `ArrayRow`. Raises `DataError`."""
    if isinstance(tokens, numpy.ndarray):
        _refuse_other_rows(tokens, whole=tokens.dtype.kind in "iu")
        return ArrayRow(tokens)
    if isinstance(tokens, Tensor):
        _refuse_other_rows(tokens, whole=not (tokens.is_floating_point() or tokens.is_complex()))
        return tokens
    if not all(hasattr(tokens, name) for name in ("tokens", "windows", "vocabulary")):
        raise DataError(
            f"Tokens must be a tensor or an array of ids, or a TokenRow of documents, not a {type(tokens).__name__}."
        )
    return tokens


def _refuse_other_rows(tokens: Tensor | NDArray[Any], *, whole: bool) -> None:
    if tokens.ndim != 1 or not whole:
        raise DataError(
            f"Tokens must be one row of whole numbers, not {tokens.dtype} of the shape {tuple(tokens.shape)}."
        )


def read_tokens(tokens: Any, first: int, end: int) -> Tensor:
    """Read ids (end - first) of a tensor or of a store, as int64."""
    if isinstance(tokens, Tensor):
        return tokens[first:end].long()
    return torch.from_numpy(numpy.asarray(tokens.tokens(first, end)).astype(numpy.int64))


def read_windows(tokens: Any, firsts: Sequence[int], size: int) -> NDArray[numpy.int64]:
    """Read ids (windows, size) of a tensor or of a store, given the first places of the windows."""
    if isinstance(tokens, Tensor):
        return gather_windows(tokens.numpy(force=True), firsts, size)
    windows: NDArray[numpy.int64] = tokens.windows(firsts, size)
    return windows


def filled(sample: Any, length: int, pad: int) -> Any:
    """Pad a sample to a length: inputs with ``pad`` and targets with -100."""
    inputs, targets = sample.values() if isinstance(sample, dict) else sample
    missing = length - len(inputs)
    if not missing:
        return sample
    inputs = torch.nn.functional.pad(inputs, (0, missing), value=pad)
    targets = torch.nn.functional.pad(targets, (0, missing), value=IGNORED)
    return {"input_ids": inputs, "labels": targets} if isinstance(sample, dict) else (inputs, targets)


def unigram_cross_entropy(train: NDArray[numpy.int64], val: NDArray[numpy.int64]) -> float:
    """Return the cross-entropy in nats per token of a unigram model.

    Args:
        train: Token counts of the training part (vocabulary), smoothed by adding 1 (Laplace).
        val: Token counts of the validation part (vocabulary). Without tokens, the result is NaN.
    """
    smoothed = train.astype(numpy.float64) + 1
    total = int(val.sum())
    return float(-(numpy.log(smoothed / smoothed.sum()) * val).sum() / total) if total else math.nan
