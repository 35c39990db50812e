"""The special tokens that an objective puts into a sample or leaves alone, and where words begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray
from tokenizers import Tokenizer

from darkit.data.text.tokenizers import backend_of, bert_template, needed_token, special_token, vocabulary_size
from darkit.errors import DataError

_SPACES = "ĠĊĉč▁"  # how byte-level tokens write space, newline, tab and return, and SentencePiece a space
_CONTINUED = "##"  # how WordPiece begins a token that goes on with a word
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSING = " \"')]”’»」』"  # what may stand behind the end of a sentence


@dataclass(frozen=True)
class Specials:
    """Special tokens by their use.

    Attributes:
        vocabulary: Tokens in the vocabulary.
        ids: All special tokens.
        mask: What stands for a hidden token.
        pad: What fills samples up; 0 where the tokenizer has none, for padding is told by the attention mask.
        cls: What a sample begins with, or None.
        sep: What stands behind a text, or None.
    """

    vocabulary: int
    ids: frozenset[int]
    mask: int
    pad: int = 0
    cls: int | None = None
    sep: int | None = None


def specials_of(tokenizer: Any) -> Specials:
    """Find the special tokens of a tokenizer. Raises `DataError` where it has no mask token."""
    return Specials(
        vocabulary=vocabulary_size(tokenizer),
        ids=special_ids(tokenizer),
        mask=needed_token(tokenizer, "mask"),
        pad=special_token(tokenizer, "pad") or 0,
        cls=special_token(tokenizer, "cls"),
        sep=special_token(tokenizer, "sep"),
    )


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of all special tokens of a `tokenizers.Tokenizer` or of transformers' tokenizers."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    found = set(getattr(tokenizer, "all_special_ids", ()))
    if hasattr(backend, "get_added_tokens_decoder"):
        found |= {token for token, added in backend.get_added_tokens_decoder().items() if added.special}
    return frozenset(found)


def add_marks(tokenizer: Any) -> None:
    """Let a `tokenizers.Tokenizer` that says nothing of it put its ``[CLS]`` and ``[SEP]`` around a text.

    It does so when it is asked for special tokens, and then encodes a text as the samples have it.
    """
    if not isinstance(tokenizer, Tokenizer) or tokenizer.post_processor is not None:
        return
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    if cls is not None and sep is not None:
        tokenizer.post_processor = bert_template(cls, sep)


def sentence_endings(tokenizer: Any) -> NDArray[numpy.bool_]:
    """Tells of each token of the vocabulary whether a sentence ends with it (vocabulary): a mark or a line's end."""
    backend = backend_of(tokenizer)
    rows = [[token] for token in range(vocabulary_size(tokenizer))]
    texts = [tokenizer.decode(row) for row in rows] if backend is None else backend.decode_batch(rows)
    ends = numpy.zeros(len(rows), dtype=bool)
    for token, text in enumerate(texts):
        ends[token] = text.endswith("\n") or text.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)
    ends[list(special_ids(tokenizer))] = False
    return ends


def word_beginnings(tokenizer: Any) -> NDArray[numpy.bool_]:
    """Tells of each token of the vocabulary whether it begins a word (vocabulary).

    A token of WordPiece that begins with ``##`` goes on with a word. In a vocabulary that writes spaces into its
    tokens, as byte-level and SentencePiece ones do, a token begins a word if it has one in front, or no letter.

    Raises:
        DataError: The vocabulary tells neither.
    """
    tokens: dict[str, int] = tokenizer.get_vocab()
    begins = numpy.ones(vocabulary_size(tokenizer), dtype=bool)
    if any(token.startswith(_CONTINUED) and len(token) > 2 for token in tokens):
        going_on = [number for token, number in tokens.items() if token.startswith(_CONTINUED) and len(token) > 2]
    elif any(token[:1] in "Ġ▁" and len(token) > 1 for token in tokens if token):
        going_on = [number for token, number in tokens.items() if token[:1].isalnum() and token[0] not in _SPACES]
    else:
        raise DataError(
            "Whole words can be hidden only with a tokenizer whose tokens tell where a word begins: WordPiece, or one "
            "with spaces in its tokens."
        )
    begins[going_on] = False
    begins[list(special_ids(tokenizer))] = True
    return begins
