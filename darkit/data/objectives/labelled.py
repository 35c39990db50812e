"""Texts with a label or a number (``data=classification``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset

from darkit.data.collate import Pad
from darkit.data.objectives.labels import TargetReader, check_size
from darkit.data.sources.choice import DataChoice
from darkit.data.sources.splits import TRAIN
from darkit.data.text.corpus import encode_parts, find_tokenizer, read_parts, texts_of
from darkit.data.text.tokenizers import special_token
from darkit.data.text.windows import TokenRow, read_tokens, sample_room
from darkit.errors import DataError


class LabelledTexts(Dataset[dict[str, Tensor]]):
    """Encoded texts with their labels or numbers.

    A sample is ``{"input_ids", "labels"}``; the batch also has an ``attention_mask``.

    Args:
        tokens: The texts, each a document.
        labels: The targets (texts, ...).
        length: Maximum tokens per sample, special tokens included; longer texts are truncated.
        before: First tokens of a sample, such as ``[CLS]``.
        behind: Last tokens of a sample, such as ``[SEP]``.
        pad: The padding token.
        fixed: Pad to ``length`` instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this, up to ``length``.
        facts: Data facts for ``run.json``.

    Raises:
        DataError: The length leaves no room, the numbers of texts and labels differ, or a sample would be empty.
    """

    def __init__(
        self,
        tokens: TokenRow,
        labels: Tensor,
        length: int,
        *,
        before: Sequence[int] = (),
        behind: Sequence[int] = (),
        pad: int = 0,
        fixed: bool = False,
        multiple_of: int = 1,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.room = sample_room(length, len(before) + len(behind))
        if len(labels) != tokens.documents:
            raise DataError(f"There are {tokens.documents} texts, but {len(labels)} labels.")
        empty = numpy.flatnonzero(numpy.diff(tokens.bounds) == 0)
        if len(empty) and self.room == length:
            raise DataError(f"Text {empty[0]} has no token. Remove it, or use a tokenizer with [CLS] and [SEP].")
        self.tokens = tokens
        self.labels = labels
        self.before, self.behind = (torch.tensor(list(part), dtype=torch.int64) for part in (before, behind))
        self.vocabulary = tokens.vocabulary
        self.context_length = length
        self.facts = dict(facts or {})
        self.task = "classification" if self.facts.get("label_names") else "regression"
        self.collate_fn = Pad(pad, length=length if fixed else None, multiple_of=multiple_of, most=length)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        first, end = (int(bound) for bound in self.tokens.bounds[index : index + 2])
        ids = read_tokens(self.tokens, first, min(end, first + self.room))
        return {"input_ids": torch.cat([self.before, ids, self.behind]), "labels": self.labels[index]}


def labelled_text(
    path: Any,
    *,
    field: str = "text",
    label: str = "label",
    task: str = "classification",
    tokenizer: Any = None,
    kind: str = "wordpiece",
    vocab_size: int = 2048,
    context_length: int = 128,
    output_size: int | None = None,
    fixed: bool = False,
    multiple_of: int = 1,
    split: str = "train",
    val_fraction: float = 0.1,
    val_files: str | Sequence[str] | None = None,
    seed: int = 0,
) -> DataChoice:
    """Prepare texts with a label or a number each.

    Args:
        path: As for `darkit.data.open_source`, with the two fields.
        field: The field with the text.
        label: The field with the label, or with the number.
        task: ``classification`` or ``regression``.
        tokenizer: A tokenizer, its path or its hub name; None trains one of ``kind`` on the training part.
        kind: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Maximum vocabulary size of a trained tokenizer.
        context_length: Maximum tokens per sample; longer texts are truncated.
        output_size: Number of labels or of predicted numbers, to check against the data.
        fixed: Pad to ``context_length`` instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this, up to ``context_length``.
        split: The split of a Hugging Face dataset.
        val_fraction: Fraction held out for validation.
        val_files: Names or patterns of the validation files instead.
        seed: Seed of the split.

    Returns:
        Texts with their labels, the tokenizer, a loss for models without one, as baseline the loss of predicting the
        label frequencies or the mean, and as settings the sizes of vocabulary and output.

    Raises:
        DataError: The records, the tokenizer or a setting are invalid.
    """
    reader = TargetReader((label,), task)
    parts = read_parts(
        path,
        (field, label),
        val_fraction=val_fraction,
        val_files=val_files,
        seed=seed,
        split=split,
        by=(field,),
        each=reader.add,
    )
    targets = reader.targets(parts.split)
    check_size("output_size", output_size, targets.size)
    special = None if kind == "wordpiece" else ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    found = find_tokenizer(
        tokenizer, lambda: texts_of(parts, TRAIN, field), kind=kind, vocab_size=vocab_size, special_tokens=special
    )
    cls, sep = special_token(found, "cls"), special_token(found, "sep")
    options: dict[str, Any] = {
        "before": [] if cls is None else [cls],
        "behind": [] if sep is None else [sep],
        "pad": special_token(found, "pad") or 0,
        "fixed": fixed,
        "multiple_of": multiple_of,
        "facts": parts.facts | targets.facts,
    }
    train, val = encode_parts(parts, found, field)
    return DataChoice(
        LabelledTexts(train, targets.train, context_length, **options),
        None if val is None else LabelledTexts(val, targets.val, context_length, **options),
        tokenizer=found,
        loss=targets.loss,
        baselines=targets.baselines,
        settings={"vocab_size": train.vocabulary, "output_size": targets.size},
    )
