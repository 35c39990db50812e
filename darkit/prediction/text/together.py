"""Several texts that are continued together: one call of the model gives the next token of each.

No text is padded: all are read up to the end of the shortest, then token by token, and those that are still within
their prompt take its next token. So every text has the positions, and the limits, that it has alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

from torch import Tensor

from darkit.errors import ModelError
from darkit.prediction.text.decoding import Decoder, Stops
from darkit.prediction.text.language import Reader
from darkit.prediction.text.sampling import Choice, Sampling

MOST = 16
"""Texts that are continued together at most; their caches take memory."""


class Text:
    """A text that is being continued.

    Args:
        tokenizer: A `tokenizers.Tokenizer` or a transformers tokenizer.
        ids: Tokens of the prompt.
        sampling: The settings.
        ends: Tokens that end the text.
        limit: Maximum tokens that the model sees, or None.

    Attributes:
        ids: The tokens so far, without those of the prompt that the model does not see.
        pieces: Pieces of new text that nobody has taken yet.
        finished: Whether no further token is wanted.
        error: What ended the text early, or None.
    """

    def __init__(
        self, tokenizer: Any, ids: list[int], sampling: Sampling, ends: set[int], limit: int | None = None
    ) -> None:
        self.ids = ids[-limit:] if limit else ids
        self.pieces: deque[str] = deque()
        self.finished = False
        self.error: ModelError | None = None
        self._choose, self._decoder, self._stops = Choice(sampling), Decoder(tokenizer, ids), Stops(sampling.stop)
        self._left = sampling.max_new_tokens
        self._ends = ends

    def add(self, logits: Tensor) -> None:
        """Choose the next token, given its logits (vocabulary)."""
        try:
            token = self._choose(logits)
        except ModelError as error:
            self.error, self.finished = error, True
            return
        if token not in self._ends:
            self.ids.append(token)
            self._left -= 1
            self.pieces.append(self._stops.add(self._decoder.add(token)))
            self.finished = self._stops.reached
            if self.finished or self._left:
                return
        self.finished = True
        self.pieces.append(self._stops.add(self._decoder.rest()))
        self.pieces.append(self._stops.rest())


class Together:
    """Texts that are continued together. Each may be read at any time and from any thread, to its end or not.

    Args:
        reader: The model's reader.
        texts: The texts, at least one.
    """

    def __init__(self, reader: Reader, texts: Sequence[Text]) -> None:
        self._reader = reader
        self._texts = texts
        self._length = min(len(text.ids) for text in texts)
        self._lock = Lock()
        self._failure: BaseException | None = None

    def streams(self) -> list[Iterator[str]]:
        """Return the new text of each, as an iterator of pieces in whole characters."""
        return [self._stream(text) for text in self._texts]

    def _stream(self, text: Text) -> Iterator[str]:
        try:
            while True:
                while text.pieces:
                    piece = text.pieces.popleft()
                    if piece:
                        yield piece
                if text.finished:
                    break
                self._step_for(text)
        finally:
            text.finished = True
        if text.error is not None:
            raise text.error

    def _step_for(self, text: Text) -> None:
        """Continue all texts by a token, unless another thread has just done it."""
        with self._lock:
            if text.pieces or text.finished:
                return
            if self._failure is not None:  # the cache may hold the tokens of some layers only
                raise self._failure
            try:
                self._step()
            except BaseException as error:
                self._failure = error
                raise

    def _step(self) -> None:
        length, texts = self._length, self._texts
        if self._reader.limit and length > self._reader.limit:  # no cache, so the others may go
            texts = [text for text in texts if not text.finished]
        logits = self._reader.read([_first(text.ids, length) for text in texts])
        self._length += 1
        for text, row in zip(texts, logits, strict=True):
            if len(text.ids) == length and not text.finished:
                text.add(row)


def in_groups(texts: Sequence[Text], spread: int) -> list[list[Text]]:
    """Divide texts into groups that are worth continuing together.

    Args:
        texts: The texts.
        spread: Tokens by which the lengths in a group may differ.
    """
    groups: list[list[Text]] = []
    for text in sorted(texts, key=lambda text: len(text.ids)):
        if not groups or len(groups[-1]) == MOST or len(text.ids) - len(groups[-1][0].ids) > spread:
            groups.append([])
        groups[-1].append(text)
    return groups


def _first(ids: list[int], length: int) -> list[int]:
    """Return the first tokens; a text that ended before repeats its last one, which nobody reads."""
    missing = length - len(ids)
    if not missing:
        return ids
    return ids[:length] if missing < 0 else ids + ids[-1:] * missing
