"""Text for masked language models, alone or in pairs of sentences: the choices ``data=masked`` and ``data=pairs``."""

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
    """Prepare text of which tokens are hidden, as BERT is trained on.

    The text is tokenised once and kept below the darkit home. In training other tokens are hidden each time, in
    evaluation always the same.

    Args:
        path: What `darkit.data.open_source` takes; None takes the text that every Python carries.
        tokenizer: A tokenizer, its path or its name on the hub; None trains one of ``kind`` on the training part.
        kind: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Tokens of the tokenizer that is trained.
        context_length: Tokens of a sample at most.
        rate: Which part of the tokens is chosen.
        whole_words: Whether whole words are.
        pairs: Whether samples are pairs of sentences with a ``next_sentence_label``.
        packed: Whether a sample may go over the end of a document; not for pairs.
        fixed: Whether to pad to ``context_length`` instead of to the longest of the batch.
        multiple_of: Of what the padded length is a multiple, as far as ``context_length`` allows.
        field: The field with the text.
        documents: What a document of a text file is: ``file``, ``paragraph`` or ``line``.
        split: Which split of a Hugging Face dataset.
        val_fraction: About which part of the text to evaluate on.
        val_files: Names or patterns of the files to evaluate on instead.
        seed: Seed of the split and of what is hidden in evaluation.

    Raises:
        DataError: The text, the tokenizer or a setting is not what this needs.
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
