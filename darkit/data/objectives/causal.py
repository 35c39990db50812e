"""The embedded text for a language model: documents, split, tokenizer and windows (``data=text``)."""

from __future__ import annotations

from collections.abc import Sequence
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer
from torch import Tensor

from darkit.data.sources.choice import DataChoice
from darkit.data.sources.source import text_source
from darkit.data.sources.splits import TRAIN, VAL, Split, check_val_fraction, split_records
from darkit.data.text.tokenizers import encode_batch, needed_token, train_bpe, vocabulary_size
from darkit.data.text.windows import TokenWindows, unigram_cross_entropy


def embedded_documents() -> list[str]:
    """Return English prose that comes with Python: the topics of ``help()``, about 465,000 characters."""
    return [topics[name] for name in sorted(topics)]


def split_documents(documents: Sequence[str], val_fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Split whole documents by content, so that no text is in both parts.

    Args:
        documents: At least two different ones.
        val_fraction: Fraction of the characters held out for validation, above 0 and below 1.
        seed: Seed of the split.

    Returns:
        The training and the validation documents, both in their order.

    Raises:
        DataError: The fraction is out of range, or there are too few documents.
    """
    return _parts(documents, _split(documents, val_fraction, seed))


def _split(documents: Sequence[str], val_fraction: float, seed: int) -> Split:
    check_val_fraction(val_fraction, needed=True)
    return split_records(text_source(documents), val_fraction=val_fraction, seed=seed)


def _parts(documents: Sequence[str], split: Split) -> tuple[list[str], list[str]]:
    train, val = (
        [document for document, where in zip(documents, split.parts, strict=True) if where == part]
        for part in (TRAIN, VAL)
    )
    return train, val


def encode_documents(tokenizer: Tokenizer, documents: Sequence[str]) -> Tensor:
    """Encode documents into one row of ids (tokens), each followed by the end-of-text token."""
    end = needed_token(tokenizer, "end")
    rows = [[*ids, end] for ids in encode_batch(tokenizer, documents)]
    return torch.tensor([token for row in rows for token in row], dtype=torch.int32)


def text_data(
    context_length: int = 128, vocab_size: int = 2048, val_fraction: float = 0.1, seed: int = 0
) -> DataChoice:
    """Prepare the embedded text for a language model.

    Args:
        context_length: Tokens per window.
        vocab_size: Vocabulary size of the byte-level BPE tokenizer trained on the training part.
        val_fraction: Fraction held out for validation.
        seed: Seed of the split.

    Returns:
        Windows of tokens and next tokens, the tokenizer, and the cross-entropy of a unigram model as baseline.
    """
    documents = embedded_documents()
    split = _split(documents, val_fraction, seed)
    train_documents, val_documents = _parts(documents, split)
    tokenizer = train_bpe(train_documents, vocab_size)
    train, val = (encode_documents(tokenizer, documents) for documents in (train_documents, val_documents))
    windows, val_windows = (TokenWindows(row, context_length, facts={"split": split.facts}) for row in (train, val))
    size = vocabulary_size(tokenizer)
    unigram = unigram_cross_entropy(*(torch.bincount(row, minlength=size).numpy() for row in (train, val)))
    return DataChoice(
        windows,
        val_windows,
        tokenizer=tokenizer,
        baselines={"unigram model": unigram},
        settings={"vocab_size": size},
    )
