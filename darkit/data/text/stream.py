"""Text that is tokenized while it is read, for data that does not fit in memory (``data=stream``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from darkit.data.sources.choice import DataChoice
from darkit.data.sources.source import Source, content_key, open_source
from darkit.data.sources.splits import check_val_fraction
from darkit.data.text.tokenizers import (
    END_OF_TEXT,
    encode_batch,
    load_tokenizer,
    needed_token,
    special_token,
    vocabulary_size,
)
from darkit.data.text.trained import trained_tokenizer
from darkit.data.text.windows import filled, window_sample, window_size
from darkit.errors import DataError, listing

_BLOCK_TEXTS = 256  # that are tokenized together
_BLOCK_CHARACTERS = 1_000_000
_MIXED_CHARACTERS = 16_000_000  # of texts whose windows are shuffled together
_TRAINING_CHARACTERS = 50_000_000  # that a tokenizer is trained on
_RECORDS = 64  # that make the fingerprint

Ids = NDArray[numpy.int64]


class TokenStream(IterableDataset[Any]):
    """Fixed windows over texts that are packed one after the other, each with its end-of-text token.

    Every token but the first is a target exactly once per epoch. Worker processes share the texts: text number n goes
    to worker n modulo their number. Processes of several devices share the windows instead, so that all get the same
    number: each reads all texts and takes its window of every round; an incomplete last round is dropped.

    Without workers, a resumed run skips to its text without tokenizing those before.

    Args:
        texts: Returns an iterator of the texts.
        tokenizer: A `tokenizers.Tokenizer` or a transformers tokenizer.
        length: Tokens per window.
        end: The end-of-text token.
        vocabulary: Vocabulary size.
        pad: Padding of the last window, without targets (-100); None drops an incomplete window.
        named: Make samples dicts for transformers' models; see `TokenWindows`.
        shuffle: Number of consecutive texts whose windows are shuffled together, up to 16 million characters, in
            another order in each epoch. 0 keeps the order of the texts.
        seed: Seed of that order, which depends on the seed, the epoch and the position only.
        facts: Data facts for ``run.json``.

    Raises:
        DataError: The length is below 1, or 2 with ``named``, or ``shuffle`` is below 0.
    """

    task = "causal"
    even_ranks = True  # all ranks get the same number of windows

    def __init__(
        self,
        texts: Callable[[], Iterator[str]],
        tokenizer: Any,
        length: int,
        *,
        end: int,
        vocabulary: int,
        pad: int | None = None,
        named: bool = False,
        shuffle: int = 0,
        seed: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        size = window_size(length, named)
        if shuffle < 0:
            raise DataError(f"shuffle must be at least 0, not {shuffle}.")
        self.texts = texts
        self.tokenizer = tokenizer
        self.length = self.context_length = length
        self.end = end
        self.pad = pad
        self.named = named
        self.shuffle, self.seed = shuffle, seed
        self.vocabulary = vocabulary
        self.facts = dict(facts or {})
        self.epoch = 0
        self.rank, self.world_size = 0, 1
        self._size = size
        self._state: dict[str, Any] = {}
        self._resume_state: dict[str, Any] = {}

    def set_rank(self, rank: int, world_size: int) -> None:
        """Set the rank of this process and the number of processes, before the data is read."""
        self.rank, self.world_size = rank, world_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order of its windows."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the iteration; empty at the start and the end of an epoch."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume the next iteration from a state."""
        self._state = self._resume_state = dict(state)

    def __iter__(self) -> Iterator[Any]:
        state, self._resume_state, self._state = self._resume_state, {}, {}
        if not state.get("ended"):
            yield from self._windows(state)
        self._state = {}

    def _windows(self, state: Mapping[str, Any]) -> Iterator[Any]:
        """Pack blocks of texts from the position in a state: a text, the remaining tokens before it, and rounds done.

        A round is a window for every process.
        """
        step = self._size - 1
        span = step * self.world_size
        rest, done = numpy.array(state.get("rest", ()), dtype=numpy.int64), int(state.get("rounds", 0))
        for text, block in self._blocks(int(state.get("text", 0))):
            place = {"text": text, "rest": rest.tolist()}
            tokens = numpy.concatenate([rest, self._encode(block)])
            order = self._order(text, max(0, len(tokens) - 1) // span)
            for number in range(done, len(order)):
                self._state = place | {"rounds": number + 1}
                yield self._sample(tokens, int(order[number]) * span + self.rank * step)
            done, rest = 0, tokens[len(order) * span :]
        if self.pad is not None and self.world_size == 1 and len(rest) > 1:
            self._state = {"ended": True}
            yield self._sample(rest, 0)

    def _order(self, text: int, rounds: int) -> Ids:
        """Return the order of a block's rounds (rounds)."""
        if not self.shuffle:
            return numpy.arange(rounds)
        return numpy.random.default_rng((self.seed % 2**63, self.epoch, text)).permutation(rounds)

    def _blocks(self, first: int) -> Iterator[tuple[int, list[str]]]:
        """Yield texts from ``first`` on in blocks, each with the index of its first text."""
        worker = get_worker_info()
        mine, every = (worker.id, worker.num_workers) if worker else (0, 1)
        most = (self.shuffle, _MIXED_CHARACTERS) if self.shuffle else (_BLOCK_TEXTS, _BLOCK_CHARACTERS)
        begin, block, characters = first, [], 0
        for number, text in enumerate(self.texts()):
            if number < first or number % every != mine:
                continue
            block.append(text)
            characters += len(text)
            if len(block) == most[0] or characters >= most[1]:
                yield begin, block
                begin, block, characters = number + 1, [], 0
        if block:
            yield begin, block

    def _encode(self, texts: list[str]) -> Ids:
        rows = encode_batch(self.tokenizer, texts)
        return numpy.array([token for row in rows for token in (*row, self.end)], dtype=numpy.int64)

    def _sample(self, tokens: Ids, first: int) -> Any:
        window = torch.from_numpy(tokens[first : first + self._size].copy())
        return filled(window_sample(window, self.named), self.length, self.pad or 0)


@dataclass(frozen=True)
class _Share:
    """The texts of one part, chosen by a hash of their content, so that no text is in both."""

    source: Source
    field: str
    fraction: float
    seed: int
    val: bool

    def __call__(self) -> Iterator[str]:
        limit = int(self.fraction * 2**128)
        for text in self.source.texts(self.field):
            if (content_key({self.field: text}, str(self.seed)) < limit) == self.val:
                yield text


def streamed_text(
    path: Any,
    *,
    tokenizer: Any = None,
    kind: str = "bpe",
    vocab_size: int = 2048,
    context_length: int = 128,
    named: bool = False,
    shuffle: int = 1000,
    field: str = "text",
    documents: str = "line",
    split: str = "train",
    val_fraction: float = 0.01,
    seed: int = 0,
) -> DataChoice:
    """Stream text for a language model.

    Nothing is counted or kept: a hash of each text decides whether it is for training or validation.

    Args:
        path: As for `darkit.data.open_source`.
        tokenizer: A tokenizer, its path or its name on the hub; None trains one of ``kind`` on the first 50 million
            characters of the training part.
        kind: ``bpe``, ``wordpiece``, ``unigram`` or ``characters``.
        vocab_size: Maximum vocabulary size of a trained tokenizer.
        context_length: Tokens per window.
        named: Make batches dicts for transformers' models.
        shuffle: Number of consecutive texts whose windows are shuffled together in training; 0 keeps their order.
        field: The field with the text.
        documents: Unit of a text file: ``file``, ``paragraph`` or ``line``.
        split: The split of a Hugging Face dataset.
        val_fraction: Fraction of the texts held out for validation, from 0 to below 1.
        seed: Seed of the split and of the order.

    Raises:
        DataError: The text, the tokenizer or a setting is invalid. Later records are checked when they are read.
    """
    check_val_fraction(val_fraction)
    source = open_source(path, fields=(field,), documents=documents, split=split)
    how: dict[str, Any] = {"by": "content", "val_fraction": val_fraction, "seed": seed}
    how["fingerprint"] = _fingerprint(source, [documents, how])
    parts = [_Share(source, field, val_fraction, seed, val) for val in (False, True)]
    if tokenizer is None:
        found = trained_tokenizer(lambda: _first_texts(parts[0]), kind, vocab_size, (END_OF_TEXT, "[UNK]", "[PAD]"))
    else:
        found = load_tokenizer(tokenizer)
    end = needed_token(found, "end", "packing texts one after the other")
    pad = special_token(found, "pad")
    train, val = (
        TokenStream(
            part,
            found,
            context_length,
            end=end,
            vocabulary=vocabulary_size(found),
            pad=end if pad is None else pad,
            named=named,
            shuffle=0 if part.val else shuffle,
            seed=seed,
            facts={"files": list(source.files[:16]), "split": how},
        )
        for part in parts
    )
    settings = {"vocab_size": vocabulary_size(found)}
    return DataChoice(train, val if val_fraction else None, tokenizer=found, settings=settings)


def _fingerprint(source: Source, options: list[Any]) -> str:
    """Return a sha256 over file sizes, the first records and options; reading everything would take too long."""
    sizes = [Path(file).stat().st_size if Path(file).is_file() else file for file in source.files]
    first = [content_key(record.values) for record in islice(source.records(), _RECORDS)]
    if not first:
        raise DataError(f"There are no records in {listing(source.files)}.")
    return hashlib.sha256(json.dumps([sizes, first, options]).encode()).hexdigest()


def _first_texts(texts: Callable[[], Iterator[str]]) -> Iterator[str]:
    left = _TRAINING_CHARACTERS
    for text in texts():
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return
