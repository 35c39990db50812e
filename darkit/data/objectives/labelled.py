"""Texts with a label, or with a number: the choice ``data=classification``."""

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
    """Encoded texts and what is to be found of each.

    A sample is ``{"input_ids", "labels"}``; the batch gets an ``attention_mask`` besides.

    Args:
        tokens: The texts, each a document.
        labels: What is to be found (texts, ...).
        length: Tokens of a sample at most, those before and behind included; a longer text is cut.
        before: What a sample begins with, such as ``[CLS]``.
        behind: What it ends with, such as ``[SEP]``.
        pad: The padding token.
        fixed: Whether to pad to ``length`` instead of to the longest of the batch.
        multiple_of: Of what the padded length is a multiple, as far as ``length`` allows.
        facts: What ``run.json`` tells of the data.

    Raises:
        DataError: The length leaves no place, there are not as many labels as texts, or a sample would have no token.
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
            raise DataError(
                f"Text {empty[0]} has no token, and nothing is put around it: leave it out, or take a tokenizer with "
                "[CLS] and [SEP]."
            )
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
    """Prepare texts with a label each, or with a number to predict.

    Args:
        path: What `darkit.data.open_source` takes, with the two fields.
        field: The field with the text.
        label: The field with the label, or with the number.
        task: ``classification`` or ``regression``.
        tokenizer: A tokenizer, its path or its name on the hub; None trains one of ``kind`` on the training part.
        kind: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Tokens of the tokenizer that is trained.
        context_length: Tokens of a sample at most; a longer text is cut.
        output_size: How many labels or numbers the model gives; None takes what there is.
        fixed: Whether to pad to ``context_length`` instead of to the longest of the batch.
        multiple_of: Of what the padded length is a multiple, as far as ``context_length`` allows.
        split: Which split of a Hugging Face dataset.
        val_fraction: About which part of the text to evaluate on.
        val_files: Names or patterns of the files to evaluate on instead.
        seed: Seed of the split.

    Returns:
        Texts with their labels, the tokenizer, a loss for models that bring none, as baseline the loss of knowing only
        the labels' frequencies or the mean, and as settings the sizes of vocabulary and output.

    Raises:
        DataError: The records, the tokenizer or a setting are not what this needs.
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
