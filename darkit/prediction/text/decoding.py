"""Tokens that become text one by one: in whole characters, at a constant cost for each, and up to a stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from darkit.data.text.specials import special_ids

_UNFINISHED = "\ufffd"  # what a decoder makes of a character whose bytes are not all there yet
_MOST_UNFINISHED = 3  # such signs for one character of up to four bytes
_CONTEXTS = (4, 8, 16, 32)  # tokens before the new ones; a decoder looks no further back than one
_LONGEST_WINDOW = 32  # tokens that are decoded together before the window is made shorter
_SHORTENED = range(8, 17)


class Decoder:
    """Turn tokens into text as they come.

    What a token says depends on the one before: whether a space or a whole character comes of it. So a window of the
    last tokens is decoded, and what it says beyond what was told already is new. Together the pieces are what the
    tokenizer decodes of all tokens, without that of the prompt. Special tokens say nothing.

    Args:
        tokenizer: A `tokenizers.Tokenizer` or a transformers tokenizer.
        prompt: The tokens before.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._decode = decode_function(tokenizer)
        self._silent = special_ids(tokenizer)
        self._window = self._context([token for token in prompt if token not in self._silent])
        self._told = self._decode(self._window) if self._window else ""  # the part of its text that is known already
        self._new = len(self._window)  # where in it the tokens begin whose text is not known as a whole

    def add(self, token: int) -> str:
        """Take the next token and returns the text that is complete by it, which is often none."""
        if token in self._silent:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        if not text.startswith(self._told):  # bytes that are no character make a decoder take back those before
            self._window, self._told, self._new = self._window[self._new :], "", 0
            text = self._decode(self._window)
        end = max(len(text.rstrip(_UNFINISHED)), len(text) - _MOST_UNFINISHED)
        piece = text[len(self._told) : end]
        if piece and end == len(text):
            self._window = self._window[self._new :]
            self._told, self._new = self._decode(self._window), len(self._window)
        elif piece:
            self._told = text[:end]
        if len(self._window) > _LONGEST_WINDOW:
            self._shorten(text)
        return piece

    def rest(self) -> str:
        """Return what no further token can complete."""
        return self._decode(self._window)[len(self._told) :] if self._window else ""

    def _context(self, prompt: list[int]) -> list[int]:
        """Return so many of the last tokens of the prompt that they begin with a whole character."""
        for count in _CONTEXTS:
            window = prompt[-count:]
            text = self._decode(window) if window else ""
            if text and not text.startswith(_UNFINISHED):
                return window
        return prompt

    def _shorten(self, text: str) -> None:
        """Drop the first tokens of a window in which nothing was complete for long."""
        for count in _SHORTENED:
            window = self._window[-count:]
            kept, open_characters = self._decode(window), len(text) - len(self._told)
            if text.endswith(kept) and len(kept) >= open_characters:
                self._window, self._told, self._new = window, kept[: len(kept) - open_characters], 0
                return


class Stops:
    """Ends a text before the first of some strings, in however many pieces that comes.

    Args:
        stops: The strings.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""  # what may be the beginning of one
        self.reached = False

    def add(self, piece: str) -> str:
        """Take the next piece and returns what can be shown of it and of those before."""
        if not self._stops:
            return piece
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self._held, self.reached = "", True
            return text[: min(places)]
        held = max(self._overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """Return what was held back and turned out to be none of the strings."""
        return self._held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Return how many characters at the end of the text may be the beginning of a stop."""
        longest = min(len(text), len(stop) - 1)
        return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)


def decode_function(tokenizer: Any) -> Callable[[list[int]], str]:
    """Return how a tokenizer decodes tokens, special ones left out and nothing tidied up afterwards."""
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        return backend.decode
    if hasattr(tokenizer, "all_special_ids"):
        return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return tokenizer.decode  # type: ignore[no-any-return]
