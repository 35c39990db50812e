"""Texts and what they are to become: the choice ``data=seq2seq``."""

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

    A sample is ``{"input_ids", "decoder_input_ids", "labels"}`` as transformers names them: the source with its end,
    the target shifted by the token that it starts with, and the target with its end. The batch gets an
    ``attention_mask`` of the source besides.

    Args:
        sources: The sources, each a document.
        targets: As many targets.
        length: Tokens of a source at most, its end included; a longer one is cut.
        target_length: Tokens of a target at most, its end included.
        end: What a source and a target end with.
        start: What the decoder starts with.
        pad: The padding token.
        fixed: Whether to pad to the two lengths instead of to the longest of the batch.
        multiple_of: Of what the padded length is a multiple.
        facts: What ``run.json`` tells of the data.

    Raises:
        DataError: A length is below 2, or there are not as many targets as sources.
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
    """Prepare texts and what they are to become, such as translations or summaries.

    Args:
        path: What `darkit.data.open_source` takes, with the two fields.
        source: The field with the text that is given.
        target: The field with the text that is wanted.
        tokenizer: A tokenizer for both, its path or its name on the hub; None trains one of ``kind`` on both.
        kind: ``bpe``, ``wordpiece``, ``unigram`` or ``characters``.
        vocab_size: Tokens of the tokenizer that is trained.
        context_length: Tokens of a source at most; a longer one is cut.
        target_length: Tokens of a target at most; None takes ``context_length``.
        fixed: Whether to pad to these two lengths instead of to the longest of the batch.
        multiple_of: Of what the padded lengths are a multiple.
        split: Which split of a Hugging Face dataset.
        val_fraction: About which part of the pairs to evaluate on.
        val_files: Names or patterns of the files to evaluate on instead.
        seed: Seed of the split.

    Raises:
        DataError: The records, the tokenizer or a setting are not what this needs.
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
