"""Text for masked language models (``data=masked``), also with next-sentence pairs (``data=pairs``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darkit.data.objectives.causal import embedded_documents
from darkit.data.objectives.masking import MaskedTokens, Masking
from darkit.data.objectives.next_sentence import SentencePairs
from darkit.data.sources.choice import DataChoice
from darkit.data.sources.source import text_source
from darkit.data.text.preparation import prepare
from darkit.data.text.specials import add_marks, sentence_endings, specials_of, word_beginnings


def masked_text(
    path: Any = None,
    *,
    tokenizer: Any = None,
    kind: str = "wordpiece",
    vocab_size: int = 2048,
    context_length: int = 128,
    rate: float = 0.15,
    whole_words: bool = False,
    pairs: bool = False,
    packed: bool = False,
    fixed: bool = False,
    multiple_of: int = 1,
    field: str = "text",
    documents: str = "file",
    split: str = "train",
    val_fraction: float = 0.1,
    val_files: str | Sequence[str] | None = None,
    seed: int = 0,
) -> DataChoice:
    """Prepare text with masked tokens, as for BERT.

    The text is tokenized once and kept in the darkit home. Training masks other tokens each time, validation always the
    same ones.

    Args:
        path: As for `darkit.data.open_source`; None takes the text that comes with Python.
        tokenizer: A tokenizer, its path or its hub name; None trains one of ``kind`` on the training part.
        kind: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Maximum vocabulary size of a trained tokenizer.
        context_length: Maximum tokens per sample.
        rate: Fraction of the tokens that is masked.
        whole_words: Mask whole words.
        pairs: Make samples pairs of sentences with a ``next_sentence_label``.
        packed: Let a sample cross the end of a document; not for pairs.
        fixed: Pad to ``context_length`` instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this, up to ``context_length``.
        field: The field with the text.
        documents: Unit of a text file: ``file``, ``paragraph`` or ``line``.
        split: The split of a Hugging Face dataset.
        val_fraction: Fraction held out for validation.
        val_files: Names or patterns of the validation files instead.
        seed: Seed of the split and of the masks in validation.

    Raises:
        DataError: The text, the tokenizer or a setting is invalid.
    """
    special = None if kind == "wordpiece" else ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    prepared = prepare(
        text_source(embedded_documents()) if path is None else path,
        tokenizer,
        kind=kind,
        vocab_size=vocab_size,
        special_tokens=special,
        field=field,
        documents=documents,
        split=split,
        val_fraction=val_fraction,
        val_files=val_files,
        seed=seed,
        end_of_text=False,
    )
    found = prepared.tokenizer
    add_marks(found)
    masking = Masking(specials_of(found), rate=rate, begins=word_beginnings(found) if whole_words else None)
    options: dict[str, Any] = {"fixed": fixed, "multiple_of": multiple_of, "facts": prepared.facts}
    options |= {"endings": sentence_endings(found)} if pairs else {"packed": packed}
    make: Any = SentencePairs if pairs else MaskedTokens
    return DataChoice(
        make(prepared.train, context_length, masking, **options),
        None if prepared.val is None else make(prepared.val, context_length, masking, seed=seed, **options),
        tokenizer=found,
        settings={"vocab_size": prepared.vocabulary},
    )
