"""Text to train a language model on: documents, a split between them, a tokenizer and windows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer
from torch import Tensor

from darkit.data.choice import DataChoice
from darkit.data.tokenizers import END_OF_TEXT, train_bpe
from darkit.data.windows import TokenWindows, unigram_cross_entropy
from darkit.errors import DataError


def embedded_documents() -> list[str]:
    """Returns English prose that every Python carries: the topics of ``help()``, about 465,000 characters."""
    return [topics[name] for name in sorted(topics)]


def split_documents(documents: Sequence[str], val_fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Splits whole documents, so that no text is in both parts.

    Args:
        documents: Two at least.
        val_fraction: About which part of the characters to evaluate on, between 0 and 1.
        seed: Seed of the choice.

    Returns:
        The documents to train on, and those to evaluate on; in both, their order is kept.

    Raises:
        DataError: The fraction is out of its range, or there are too few documents.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f"val_fraction must lie between 0 and 1, not be {val_fraction}.")
    if len(documents) < 2:
        raise DataError(f"A split needs two documents at least, not {len(documents)}.")
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    wanted = val_fraction * sum(map(len, documents))
    chosen: set[int] = set()
    for index in order[:-1]:
        if chosen and sum(len(documents[other]) for other in chosen) + len(documents[index]) / 2 > wanted:
            break
        chosen.add(index)
    parts = [document for index, document in enumerate(documents) if index not in chosen]
    return parts, [documents[index] for index in sorted(chosen)]


def encode_documents(tokenizer: Tokenizer, documents: Sequence[str]) -> Tensor:
    """Encodes documents into one row of ids (tokens), the end-of-text token after each."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    rows = [[*encoding.ids, end] for encoding in tokenizer.encode_batch(list(documents))]
    return torch.tensor([token for row in rows for token in row], dtype=torch.int32)


def text_data(
    context_length: int = 128, vocab_size: int = 2048, val_fraction: float = 0.1, seed: int = 0
) -> DataChoice:
    """Prepares the embedded text for a language model.

    Args:
        context_length: Tokens per window.
        vocab_size: Tokens of the byte-level BPE tokenizer that is trained on the training part.
        val_fraction: About which part of the text to evaluate on.
        seed: Seed of the split.

    Returns:
        Windows of tokens and next tokens, the tokenizer, and as baseline the cross-entropy of a unigram model.
    """
    train_documents, val_documents = split_documents(embedded_documents(), val_fraction, seed)
    tokenizer = train_bpe(train_documents, vocab_size)
    train, val = (encode_documents(tokenizer, documents) for documents in (train_documents, val_documents))
    windows = TokenWindows(train, context_length), TokenWindows(val, context_length)
    unigram = unigram_cross_entropy(train, val, tokenizer.get_vocab_size())
    return DataChoice(*windows, tokenizer=tokenizer, baselines={"unigram model": unigram})
