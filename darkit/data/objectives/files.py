"""One's own text as data for a language model that predicts the next token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darkit.data.sources.choice import DataChoice
from darkit.data.text.preparation import prepare
from darkit.data.text.tokenizers import special_token
from darkit.data.text.windows import DocumentWindows, TokenWindows


def text_files(
    path: Any,
    context_length: int = 128,
    tokenizer: Any = None,
    kind: str = "bpe",
    vocab_size: int = 2048,
    special_tokens: Sequence[str] | None = None,
    field: str = "text",
    documents: str = "file",
    split: str = "train",
    val_fraction: float = 0.1,
    val_files: str | Sequence[str] | None = None,
    seed: int = 0,
    named: bool = False,
    packed: bool = True,
    fixed: bool = False,
    multiple_of: int = 1,
) -> DataChoice:
    """Prepare text, or finds it prepared, and cuts it into windows.

    Args:
        path: Files, a folder, a pattern, a list of these, or a Hugging Face dataset; see `darkit.data.open_source`.
        context_length: Tokens per window.
        tokenizer: A tokenizer, its file or its name; None trains one.
        kind: Which kind is trained; see `darkit.data.train_tokenizer`.
        vocab_size: Of how many tokens at most.
        special_tokens: With which special tokens; None takes what the kind usually has.
        field: The field that holds the text.
        documents: What a document of a text file is: ``file``, ``paragraph`` or ``line``.
        split: Which split of a Hugging Face dataset.
        val_fraction: About which part of the text to evaluate on.
        val_files: The files to evaluate on instead.
        seed: Seed of the split.
        named: Whether batches are dicts as transformers' models take them, and not tokens and next tokens.
        packed: Whether documents are packed one after the other, so that all windows but the last are full; if not, a
            window never goes over the end of a document, and batches are padded.
        fixed: Whether to pad to ``context_length`` instead of to the longest of the batch.
        multiple_of: Of what the padded length is a multiple, as far as ``context_length`` allows.

    Returns:
        Windows, the tokenizer, as baseline the cross-entropy of a unigram model, and as settings the real size of the
        vocabulary.

    Raises:
        DataError: The text, the tokenizer or the split is not as it must be, or there is too little text.
    """
    prepared = prepare(
        path,
        tokenizer,
        kind=kind,
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        field=field,
        documents=documents,
        split=split,
        val_fraction=val_fraction,
        val_files=val_files,
        seed=seed,
    )
    stores = [store for store in (prepared.train, prepared.val) if store is not None]
    pad = special_token(prepared.tokenizer, "pad") or 0  # nothing is asked where it stands
    options: dict[str, Any] = {"pad": pad, "named": named, "facts": prepared.facts}
    if not packed:
        options |= {"fixed": fixed, "multiple_of": multiple_of}
    make: Any = TokenWindows if packed else DocumentWindows
    windows = [make(store, context_length, **options) for store in stores]
    unigram = prepared.meta["unigram"]
    return DataChoice(
        windows[0],
        windows[1] if len(windows) > 1 else None,
        tokenizer=prepared.tokenizer,
        baselines={} if unigram is None else {"unigram model": unigram},
        settings={"vocab_size": prepared.vocabulary},
    )
