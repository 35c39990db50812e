"""Your own text for a language model (``data=files``)."""

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
    """Prepare text, unless it is prepared already, and cut it into windows.

    Args:
        path: Files, a folder, a pattern, a list of these, or a Hugging Face dataset; see `darkit.data.open_source`.
        context_length: Tokens per window.
        tokenizer: A tokenizer, its file or its name; None trains one.
        kind: Kind of a trained tokenizer; see `darkit.data.train_tokenizer`.
        vocab_size: Its maximum vocabulary size.
        special_tokens: Its special tokens; None takes the default of the kind.
        field: The field with the text.
        documents: Unit of a text file: ``file``, ``paragraph`` or ``line``.
        split: The split of a Hugging Face dataset.
        val_fraction: Fraction held out for validation.
        val_files: Names or patterns of the validation files instead.
        seed: Seed of the split.
        named: Make batches dicts for transformers' models instead of tokens and next tokens.
        packed: Pack documents one after the other, so that all windows but the last are full; otherwise no window
            crosses the end of a document, and batches are padded.
        fixed: Pad to ``context_length`` instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this, up to ``context_length``.

    Returns:
        Windows, the tokenizer, the cross-entropy of a unigram model as baseline, and the actual vocabulary size as
        setting.

    Raises:
        DataError: The text, the tokenizer or the split is invalid, or there is too little text.
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
    pad = special_token(prepared.tokenizer, "pad") or 0  # its positions have no target
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
