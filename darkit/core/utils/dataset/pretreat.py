"""Masked tokens and pairs of sentences, of single rows and lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from darkit.data.objectives.masking import Ids, Masking, generator_of
from darkit.data.text.specials import specials_of
from darkit.errors import DataError


def mask_single(example: Sequence[int], tokenizer: Any) -> tuple[Ids, Ids]:
    """Mask a row of tokens as BERT does; torch's generator decides.

    Returns:
        The row with masked tokens, and the labels: -100 where the model predicts nothing.
    """
    return Masking(specials_of(tokenizer))(numpy.asarray(example, dtype=numpy.int64), generator_of(None, 0))


def create_next_sentence(sentences: Sequence[str], seed: int | None = None) -> tuple[list[tuple[str, str]], list[int]]:
    """Pair each sentence with the next one or, in half of all cases, with any other one.

    Args:
        sentences: The sentences, in their order.
        seed: Makes the same pairs each time; None uses torch's generator.

    Returns:
        The pairs, and for each 0 if the second sentence is the next one and 1 otherwise.

    Raises:
        DataError: There are fewer than three sentences.
    """
    if len(sentences) < 3:
        raise DataError(f"Pairs of sentences need at least 3 sentences, not {len(sentences)}.")
    generator = generator_of(seed, len(sentences))
    pairs, labels = [], []
    for index in range(len(sentences) - 1):
        random = int(generator.random() < 0.5)
        other = index + 1
        if random:
            other = int(generator.integers(len(sentences) - 2))  # any but this sentence and the next one
            other += 2 if other >= index else 0
        pairs.append((sentences[index], sentences[other]))
        labels.append(random)
    return pairs, labels
