"""Special tokens, and the beginnings of words and ends of sentences in a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray
from tokenizers import Tokenizer

from darkit.data.text.tokenizers import backend_of, bert_template, needed_token, special_token, vocabulary_size
from darkit.errors import DataError

_SPACES = "ĠĊĉč▁"  # space, newline, tab and return in byte-level tokens, and a space in SentencePiece
_CONTINUED = "##"  # WordPiece's prefix of tokens within a word
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSING = " \"')]”’»」』"  # may follow the end of a sentence


@dataclass(frozen=True)
class Specials:
    """Special tokens by their use.

    Attributes:
        vocabulary: Vocabulary size.
        ids: All special tokens.
        mask: The mask token.
        pad: The padding token; 0 if the tokenizer has none, since the attention mask marks padding.
        cls: The first token of a sample, or None.
        sep: The last token of a text, or None.
    """

    vocabulary: int
    ids: frozenset[int]
    mask: int
    pad: int = 0
    cls: int | None = None
    sep: int | None = None


def specials_of(tokenizer: Any) -> Specials:
    """Return the special tokens of a tokenizer. Raises `DataError` if it has no mask token."""
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
    """Make a `tokenizers.Tokenizer` without a post-processor add ``[CLS]`` and ``[SEP]``, as in the samples."""
    if not isinstance(tokenizer, Tokenizer) or tokenizer.post_processor is not None:
        return
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    if cls is not None and sep is not None:
        tokenizer.post_processor = bert_template(cls, sep)


def sentence_endings(tokenizer: Any) -> NDArray[numpy.bool_]:
    """Return whether each token of the vocabulary ends a sentence (vocabulary), by punctuation or a line feed."""
    backend = backend_of(tokenizer)
    rows = [[token] for token in range(vocabulary_size(tokenizer))]
    texts = [tokenizer.decode(row) for row in rows] if backend is None else backend.decode_batch(rows)
    ends = numpy.zeros(len(rows), dtype=bool)
    for token, text in enumerate(texts):
        ends[token] = text.endswith("\n") or text.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)
    ends[list(special_ids(tokenizer))] = False
    return ends


def word_beginnings(tokenizer: Any) -> NDArray[numpy.bool_]:
    """Return whether each token of the vocabulary begins a word (vocabulary).

    In WordPiece, tokens with ``##`` continue a word. In byte-level and SentencePiece vocabularies, a token begins a
    word if it starts with a space or not with a letter.

    Raises:
        DataError: The vocabulary marks neither.
    """
    tokens: dict[str, int] = tokenizer.get_vocab()
    begins = numpy.ones(vocabulary_size(tokenizer), dtype=bool)
    if any(token.startswith(_CONTINUED) and len(token) > 2 for token in tokens):
        within = [number for token, number in tokens.items() if token.startswith(_CONTINUED) and len(token) > 2]
    elif any(token[:1] in "Ġ▁" and len(token) > 1 for token in tokens if token):
        within = [number for token, number in tokens.items() if token[:1].isalnum() and token[0] not in _SPACES]
    else:
        raise DataError(
            "Whole words can be masked only with a tokenizer that marks the beginnings of words: WordPiece, or one "
            "with spaces in its tokens."
        )
    begins[within] = False
    begins[list(special_ids(tokenizer))] = True
    return begins
