"""Text that is tokenised as it is read, for what does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from darkit.data.tokenizers import encode_batch
from darkit.data.windows import filled
from darkit.errors import DataError

_BLOCK_TEXTS = 256  # that are tokenised together
_BLOCK_CHARACTERS = 1_000_000

Ids = NDArray[numpy.int64]


class TokenStream(IterableDataset[Any]):
    """Fixed windows over texts that are packed one after the other, each with its end-of-text token.

    Every token but the first is a target exactly once in an epoch. Worker processes share the texts: each packs those
    whose number is its own modulo the number of workers. Processes of several devices share the windows instead, so
    that all get the same number and none waits for another: each reads everything and takes its window of every round;
    a last round that is not full is left out.

    Without workers, a run that goes on reads forward to the text where it was, without tokenising what is before.

    Args:
        texts: Gives the texts anew each time it is called.
        tokenizer: A `tokenizers.Tokenizer` or a transformers tokenizer.
        length: Tokens per window.
        end: The end-of-text token.
        vocabulary: Tokens in the vocabulary.
        pad: What the last window is filled up with, where nothing is asked for (-100); None leaves a rest out.
        named: Whether a sample is the dict that transformers' models take; see `TokenWindows`.
        facts: What ``run.json`` tells of the data.

    Raises:
        DataError: The length is below 1, or 2 with ``named``.
    """

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
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if length < 1 + named:
            raise DataError(f"A window must have {'2 tokens' if named else '1 token'} at least, not {length}.")
        self.texts = texts
        self.tokenizer = tokenizer
        self.length = length
        self.end = end
        self.pad = pad
        self.named = named
        self.vocabulary = vocabulary
        self.facts = dict(facts or {})
        self.rank, self.world_size = 0, 1
        self._size = length if named else length + 1  # tokens to read for a window, of which the next begins with one
        self._state: dict[str, Any] = {}
        self._resumed: dict[str, Any] = {}

    @property
    def context_length(self) -> int:
        """Tokens that a model sees of a window."""
        return self.length

    def set_rank(self, rank: int, world_size: int) -> None:
        """Tells which of how many processes this is, before the data is read."""
        self.rank, self.world_size = rank, world_size

    def state_dict(self) -> dict[str, Any]:
        """Tells where the iteration is: nothing at the beginning or the end of an epoch."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Lets the next iteration go on from a state."""
        self._state = self._resumed = dict(state)

    def __iter__(self) -> Iterator[Any]:
        state, self._resumed, self._state = self._resumed, {}, {}
        if not state.get("ended"):
            yield from self._windows(state)
        self._state = {}

    def _windows(self, state: Mapping[str, Any]) -> Iterator[Any]:
        """Packs blocks of texts, from where a state is: a text, the tokens left over before it, and rounds after that.

        A round is a window for every process.
        """
        step = self._size - 1
        span = step * self.world_size
        rest, done = numpy.array(state.get("rest", ()), dtype=numpy.int64), int(state.get("rounds", 0))
        for text, block in self._blocks(int(state.get("text", 0))):
            place = {"text": text, "rest": rest.tolist()}
            tokens = numpy.concatenate([rest, self._encode(block)])
            rounds = max(0, len(tokens) - 1) // span
            for number in range(done, rounds):
                self._state = place | {"rounds": number + 1}
                yield self._sample(tokens, number * span + self.rank * step)
            done, rest = 0, tokens[rounds * span :]
        if self.pad is not None and self.world_size == 1 and len(rest) > 1:
            self._state = {"ended": True}
            yield self._sample(rest, 0)

    def _blocks(self, first: int) -> Iterator[tuple[int, list[str]]]:
        """Yields texts in blocks, each with the number of its first text in the whole, from that text on."""
        worker = get_worker_info()
        mine, every = (worker.id, worker.num_workers) if worker else (0, 1)
        begin, block, characters = first, [], 0
        for number, text in enumerate(self.texts()):
            if number < first or number % every != mine:
                continue
            block.append(text)
            characters += len(text)
            if len(block) == _BLOCK_TEXTS or characters >= _BLOCK_CHARACTERS:
                yield begin, block
                begin, block, characters = number + 1, [], 0
        if block:
            yield begin, block

    def _encode(self, texts: list[str]) -> Ids:
        rows = encode_batch(self.tokenizer, texts)
        return numpy.array([token for row in rows for token in (*row, self.end)], dtype=numpy.int64)

    def _sample(self, tokens: Ids, first: int) -> Any:
        window = torch.from_numpy(tokens[first : first + self._size].copy())
        sample = {"input_ids": window, "labels": window} if self.named else (window[:-1], window[1:])
        return filled(sample, self.length, self.pad or 0)
