"""Collators of rows of tokens, for a `torch.utils.data.DataLoader`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from darkit.data.collate import Pad
from darkit.data.text.tokenizers import encode_batch, special_token
from darkit.errors import DataError


@dataclass
class _Collator:
    """Base of the collators.

    Attributes:
        tokenizer: The tokenizer, whose padding token is used, or else its end token.
        padding: True pads to the longest row of a batch, ``max_length`` to that length.
        max_length: Longer rows are cut to it; None keeps them.
        pad_to_multiple_of: Round the padded length up to a multiple of this.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        if self.padding not in (True, "longest", "max_length") or (
            self.padding == "max_length" and not self.max_length
        ):
            raise DataError(
                f"padding must be True, 'longest' or 'max_length' with a max_length, not {self.padding!r} with "
                f"{self.max_length!r}."
            )

    def _pad(self, rows: Sequence[Mapping[str, Any]], extra: int = 0) -> dict[str, Tensor]:
        """Pad rows; ``extra`` is how many tokens more than ``max_length`` are needed."""
        longest = None if self.max_length is None else self.max_length + extra
        pad = special_token(self.tokenizer, "pad")
        pad = special_token(self.tokenizer, "end") if pad is None else pad
        length = longest if self.padding == "max_length" else None
        cut = [{name: value[:longest] if _is_row(value) else value for name, value in row.items()} for row in rows]
        batch: dict[str, Tensor] = Pad(pad or 0, length=length, multiple_of=self.pad_to_multiple_of or 1)(cut)
        return batch


class MaskDataCollatorWithPadding(_Collator):
    """Collate dicts with ``input_ids`` and ``labels``, whose padding is -100."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return self._pad(features)


class LabelDataCollatorWithPadding(_Collator):
    """Collate dicts with ``input_ids`` into ``[tokens, next tokens]`` (batch, time) each."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        ids = self._pad([{"input_ids": row["input_ids"]} for row in features], extra=1)["input_ids"]
        return [ids[:, :-1], ids[:, 1:]]


class TokenizerDataCollator(_Collator):
    """Collate texts into ``[tokens, next tokens]`` (batch, time) each."""

    def __call__(self, features: Sequence[str]) -> list[Tensor]:
        rows = [{"input_ids": ids} for ids in encode_batch(self.tokenizer, list(features))]
        ids = self._pad(rows, extra=1)["input_ids"]
        return [ids[:, :-1], ids[:, 1:]]


def _is_row(value: Any) -> bool:
    return isinstance(value, list) or getattr(value, "ndim", 0) == 1
