"""Labels and numbers in what a model returns, and of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from darkit.data.text.tokenizers import encode_batch, special_token
from darkit.engine.data.samples import describe
from darkit.errors import ConfigError, ModelError
from darkit.prediction.text.language import call_by_names, context_of, logits_of
from darkit.runs.tasks import CLASSIFICATION

_AT_ONCE = 64  # texts


@dataclass(frozen=True)
class Label:
    """A label that a model chose.

    Attributes:
        label: Its name, or its number where the run does not know it.
        probability: How sure the model is.
    """

    label: str | int
    probability: float


def read_off(output: Any, task: str, names: Sequence[str]) -> list[Any]:
    """Make predictions of what a model returned for some rows.

    Args:
        output: What it returned.
        task: ``classification`` or ``regression``.
        names: The labels by their numbers, or none.

    Returns:
        For each row a `Label`, or its numbers: a float where there is one, else a list.

    Raises:
        ModelError: There are no logits (rows, labels), or more labels than names.
    """
    values = logits_of(output)
    if not isinstance(values, Tensor) or not values.ndim:
        raise ModelError(f"The model returned {describe(output)}, of which no prediction for each row can be made.")
    values = values.detach().float().cpu()
    if task != CLASSIFICATION:
        rows = values.tolist()
        return [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
    if values.ndim != 2 or (names and values.shape[1] != len(names)):
        wanted = f"(rows, {len(names)})" if names else "(rows, labels)"
        raise ModelError(f"A classifier returns logits {wanted}, but the model returned {describe(values)}.")
    best = values.softmax(-1).max(-1)
    numbers, probabilities = best.indices.tolist(), best.values.tolist()
    return [
        Label(names[number] if names else number, probability)
        for number, probability in zip(numbers, probabilities, strict=True)
    ]


def label_texts(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], task: str, names: Sequence[str]
) -> Iterator[Any]:
    """Find a label, or numbers, for each text; one that is too long for the model is cut as in training.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        texts: The texts.
        task: ``classification`` or ``regression``.
        names: The labels by their numbers, or none.

    Yields:
        What `read_off` makes.

    Raises:
        ConfigError: A text has no token.
    """
    cls, sep, pad = (special_token(tokenizer, use) for use in ("cls", "sep", "pad"))
    before, behind = ([] if token is None else [token] for token in (cls, sep))
    limit = context_of(model)
    room = limit - len(before) - len(behind) if limit else None
    for first in range(0, len(texts), _AT_ONCE):
        part = texts[first : first + _AT_ONCE]
        rows = [[*before, *ids[:room], *behind] for ids in encode_batch(tokenizer, part)]
        empty = next((text for text, row in zip(part, rows, strict=True) if not row), None)
        if empty is not None:
            raise ConfigError(f"The text {empty!r} has no token to find a label by.")
        yield from read_off(call_by_names(model, rows, pad or 0), task, names)
