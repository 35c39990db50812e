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
    others, labels = draw_next(len(sentences), seed)
    return [(sentences[index], sentences[other]) for index, other in enumerate(others)], labels


def draw_next(count: int, seed: int | None = None) -> tuple[list[int], list[int]]:
    """Draw the second sentence of each pair, and its label, of so many sentences; see `create_next_sentence`."""
    if count < 3:
        raise DataError(f"Pairs of sentences need at least 3 sentences, not {count}.")
    generator = generator_of(seed, count)
    others, labels = [], []
    for index in range(count - 1):
        random = int(generator.random() < 0.5)
        other = index + 1
        if random:
            other = int(generator.integers(count - 2))  # any but this sentence and the next one
            other += 2 if other >= index else 0
        others.append(other)
        labels.append(random)
    return others, labels
