"""Source and target texts for an encoder and a decoder (``data=seq2seq``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from darkit.data.collate import Pad
from darkit.data.sources.choice import DataChoice
from darkit.data.sources.splits import TRAIN, VAL
from darkit.data.text.corpus import encode_texts, find_tokenizer, read_parts, texts_of
from darkit.data.text.tokenizers import needed_token, special_token
from darkit.data.text.windows import TokenRow, read_tokens
from darkit.errors import DataError


class TextPairs(Dataset[dict[str, Tensor]]):
    """Sources and targets for an encoder and a decoder.

    A sample is ``{"input_ids", "decoder_input_ids", "labels"}``, named as in transformers: the source with its end
    token, the target shifted right by the start token, and the target with its end token. The batch also has an
    ``attention_mask`` of the source.

    Args:
        sources: The sources, each a document.
        targets: The targets, as many.
        length: Maximum tokens per source, with its end token; longer ones are truncated.
        target_length: Maximum tokens per target, likewise.
        end: The end token of sources and targets.
        start: The start token of the decoder.
        pad: The padding token.
        fixed: Pad to the two lengths instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this.
        facts: Data facts for ``run.json``.

    Raises:
        DataError: A length is below 2, or the numbers of sources and targets differ.
    """

    task = "seq2seq"

    def __init__(
        self,
        sources: TokenRow,
        targets: TokenRow,
        length: int,
        target_length: int,
        *,
        end: int,
        start: int,
        pad: int = 0,
        fixed: bool = False,
        multiple_of: int = 1,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if min(length, target_length) < 2:
            raise DataError(f"A text must have 2 tokens at least, not {min(length, target_length)}.")
        if sources.documents != targets.documents:
            raise DataError(f"There are {sources.documents} sources, but {targets.documents} targets.")
        self.sources, self.targets = sources, targets
        self.lengths = length, target_length
        self.end, self.start = end, start
        self.vocabulary = max(sources.vocabulary, targets.vocabulary)
        self.context_length = max(self.lengths)
        self.facts = dict(facts or {})
        lengths = {"input_ids": length, "decoder_input_ids": target_length, "labels": target_length} if fixed else None
        self.collate_fn = Pad(pad, length=lengths, multiple_of=multiple_of, most=self.context_length)

    def __len__(self) -> int:
        return self.sources.documents

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        source, target = (
            self._read(row, index, length)
            for row, length in zip((self.sources, self.targets), self.lengths, strict=True)
        )
        shifted = torch.cat([torch.tensor([self.start]), target[:-1]])
        return {"input_ids": source, "decoder_input_ids": shifted, "labels": target}

    def _read(self, row: TokenRow, index: int, length: int) -> Tensor:
        first, end = (int(bound) for bound in row.bounds[index : index + 2])
        ids = read_tokens(row, first, min(end, first + length - 1))
        return torch.cat([ids, torch.tensor([self.end])])


def text_pairs(
    path: Any,
    *,
    source: str = "source",
    target: str = "target",
    tokenizer: Any = None,
    kind: str = "bpe",
    vocab_size: int = 2048,
    context_length: int = 128,
    target_length: int | None = None,
    fixed: bool = False,
    multiple_of: int = 1,
    split: str = "train",
    val_fraction: float = 0.1,
    val_files: str | Sequence[str] | None = None,
    seed: int = 0,
) -> DataChoice:
    """Prepare source and target texts, such as translations or summaries.

    Args:
        path: As for `darkit.data.open_source`, with the two fields.
        source: The field with the source text.
        target: The field with the target text.
        tokenizer: A tokenizer for both, its path or its hub name; None trains one of ``kind`` on both.
        kind: ``bpe``, ``wordpiece``, ``unigram`` or ``characters``.
        vocab_size: Maximum vocabulary size of a trained tokenizer.
        context_length: Maximum tokens per source; longer ones are truncated.
        target_length: Maximum tokens per target; None takes ``context_length``.
        fixed: Pad to these two lengths instead of to the longest sample of the batch.
        multiple_of: Round the padded lengths up to a multiple of this.
        split: The split of a Hugging Face dataset.
        val_fraction: Fraction held out for validation.
        val_files: Names or patterns of the validation files instead.
        seed: Seed of the split.

    Raises:
        DataError: The records, the tokenizer or a setting are invalid.
    """
    parts = read_parts(
        path, (source, target), val_fraction=val_fraction, val_files=val_files, seed=seed, split=split, by=(source,)
    )
    special = ("[PAD]", "[UNK]", "<|endoftext|>", "[CLS]")
    found = find_tokenizer(
        tokenizer,
        lambda: chain(texts_of(parts, TRAIN, source), texts_of(parts, TRAIN, target)),
        kind=kind,
        vocab_size=vocab_size,
        special_tokens=special,
    )
    end, start = needed_token(found, "end", "sequence to sequence"), special_token(found, "cls")
    pad = special_token(found, "pad")
    options: dict[str, Any] = {
        "end": end,
        "start": next((token for token in (start, pad) if token is not None), end),  # T5 starts with the padding token
        "pad": end if pad is None else pad,
        "fixed": fixed,
        "multiple_of": multiple_of,
        "facts": parts.facts,
    }
    train, val = (
        TextPairs(
            encode_texts(found, texts_of(parts, part, source)),
            encode_texts(found, texts_of(parts, part, target)),
            context_length,
            target_length or context_length,
            **options,
        )
        for part in (TRAIN, VAL)
    )
    settings = {"vocab_size": train.vocabulary}
    return DataChoice(train, val if len(val) else None, tokenizer=found, settings=settings)
