"""Labels and numbers from a model's outputs, and for texts."""

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

_BATCH_SIZE = 64  # texts


@dataclass(frozen=True)
class Label:
    """A predicted label.

    Attributes:
        label: Its name, or its number if the run has no label names.
        probability: Its probability.
    """

    label: str | int
    probability: float


def read_predictions(output: Any, task: str, names: Sequence[str]) -> list[Any]:
    """Return the predictions in a model's output for a batch of rows.

    Args:
        output: The model's output.
        task: ``classification`` or ``regression``.
        names: The label names in the order of their numbers; may be empty.

    Returns:
        For each row a `Label`, or its numbers: a float if there is one, else a list.

    Raises:
        ModelError: The output has no logits (rows, labels), or another number of labels than names.
    """
    values = logits_of(output)
    if not isinstance(values, Tensor) or not values.ndim:
        raise ModelError(f"The model returned {describe(output)}, which has no prediction for each row.")
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
    """Yield a prediction for each text as `read_predictions`; too long texts are truncated as in training.

    Raises:
        ConfigError: A text has no token.
    """
    cls, sep, pad = (special_token(tokenizer, use) for use in ("cls", "sep", "pad"))
    before, behind = ([] if token is None else [token] for token in (cls, sep))
    limit = context_of(model)
    room = limit - len(before) - len(behind) if limit else None
    for first in range(0, len(texts), _BATCH_SIZE):
        part = texts[first : first + _BATCH_SIZE]
        rows = [[*before, *ids[:room], *behind] for ids in encode_batch(tokenizer, part)]
        empty = next((text for text, row in zip(part, rows, strict=True) if not row), None)
        if empty is not None:
            raise ConfigError(f"The text {empty!r} has no tokens.")
        yield from read_predictions(call_by_names(model, rows, pad or 0), task, names)
