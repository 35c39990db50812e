"""Incremental decoding: whole characters at a constant cost per token, up to a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from darkit.data.text.specials import special_ids

_UNFINISHED = "\ufffd"  # decoders return it for an incomplete character
_MOST_UNFINISHED = 3  # per character of up to four bytes
_CONTEXTS = (4, 8, 16, 32)  # tokens of context; decoders need only one
_LONGEST_WINDOW = 32  # tokens that are decoded together before the window is shortened
_SHORTENED = range(8, 17)


class Decoder:
    """Incremental decoder of generated tokens.

    The text of a token depends on the one before. So a window of the last tokens is decoded, and the part beyond the
    text returned so far is new. Together, the pieces equal the decoded tokens without the prompt. Special tokens have
    no text.

    Args:
        tokenizer: A `tokenizers.Tokenizer` or a transformers tokenizer.
        prompt: The tokens of the prompt.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._decode = decode_function(tokenizer)
        self._silent = special_ids(tokenizer)
        self._window = self._context([token for token in prompt if token not in self._silent])
        self._returned = self._decode(self._window) if self._window else ""  # the part of its text that was returned
        self._new = len(self._window)  # index of the first token with text not returned

    def add(self, token: int) -> str:
        """Take the next token and return the text that it completes; may be empty."""
        if token in self._silent:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        if not text.startswith(self._returned):  # invalid bytes change the text before them
            self._window, self._returned, self._new = self._window[self._new :], "", 0
            text = self._decode(self._window)
        end = max(len(text.rstrip(_UNFINISHED)), len(text) - _MOST_UNFINISHED)
        piece = text[len(self._returned) : end]
        if piece and end == len(text):
            self._window = self._window[self._new :]
            self._returned, self._new = self._decode(self._window), len(self._window)
        elif piece:
            self._returned = text[:end]
        if len(self._window) > _LONGEST_WINDOW:
            self._shorten(text)
        return piece

    def rest(self) -> str:
        """Return the remaining text."""
        return self._decode(self._window)[len(self._returned) :] if self._window else ""

    def _context(self, prompt: list[int]) -> list[int]:
        """Return the last tokens of the prompt, from the start of a character."""
        for count in _CONTEXTS:
            window = prompt[-count:]
            text = self._decode(window) if window else ""
            if text and not text.startswith(_UNFINISHED):
                return window
        return prompt

    def _shorten(self, text: str) -> None:
        """Drop the first tokens of a long window."""
        for count in _SHORTENED:
            window = self._window[-count:]
            kept, open_characters = self._decode(window), len(text) - len(self._returned)
            if text.endswith(kept) and len(kept) >= open_characters:
                self._window, self._returned, self._new = window, kept[: len(kept) - open_characters], 0
                return


class Stops:
    """Truncation of streamed text before the first of some strings."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._pending = ""  # possible start of one
        self.reached = False

    def add(self, piece: str) -> str:
        """Take the next piece and return the text that can be shown now."""
        if not self._stops:
            return piece
        text = self._pending + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self._pending, self.reached = "", True
            return text[: min(places)]
        overlap = max(self._overlap(text, stop) for stop in self._stops)
        self._pending = text[len(text) - overlap :]
        return text[: len(text) - overlap]

    def rest(self) -> str:
        """Return the remaining text, which is not one of the strings."""
        return self._pending

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Return the number of characters at the end of the text that may start a stop."""
        longest = min(len(text), len(stop) - 1)
        return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)


def decode_function(tokenizer: Any) -> Callable[[list[int]], str]:
    """Return a tokenizer's decoding function, without special tokens and without cleaning up spaces."""
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        return backend.decode
    if hasattr(tokenizer, "all_special_ids"):
        return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return tokenizer.decode  # type: ignore[no-any-return]
