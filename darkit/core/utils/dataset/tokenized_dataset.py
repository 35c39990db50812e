"""Tokenized Hugging Face datasets. The package keeps what it has tokenized, so a second call reads its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy

from darkit.core.utils.dataset.packed import PackedDataset
from darkit.core.utils.dataset.pretreat import draw_next
from darkit.data.objectives.masking import Masking, generator_of
from darkit.data.text.specials import specials_of
from darkit.data.text.tokenizers import encode_batch, special_token
from darkit.data.text.windows import TokenRow
from darkit.errors import DataError

_SEED = 0  # of what is drawn, so that the same data is made each time
Rows = Mapping[str, list[Any]]


def create_tokenized_dataset(
    dataset: Any,
    tokenizer: Any,
    num_proc: int = 1,
    encode_fn: Callable[[Rows], Rows] | None = None,
    *,
    external_path: str | None = None,
) -> Any:
    """Tokenize the column ``text`` of a ``Dataset``, or of each split of a ``DatasetDict``.

    Args:
        dataset: The dataset.
        tokenizer: A tokenizer of transformers.
        num_proc: Number of processes.
        encode_fn: Makes the new columns of a batch of rows; None calls the tokenizer.
        external_path: DarwinKit's name of a folder for what it has tokenized; nothing depends on it, because the
            package keeps that in its own cache.

    Returns:
        The dataset, with the new columns alone.

    Raises:
        DataError: It is neither, or has no column ``text``.
    """
    return _mapped(dataset, encode_fn or (lambda rows: dict(tokenizer(rows["text"]))), num_proc, indexed=False)


def create_tokenized_mask_dataset(dataset: Any, tokenizer: Any, num_proc: int = 1) -> Any:
    """Tokenize a dataset as `create_tokenized_dataset` does, and mask tokens as BERT does.

    ``input_ids`` have the masked tokens, and ``labels`` -100 where nothing is predicted.
    """

    def encode(rows: Rows, indices: list[int]) -> Rows:
        return _masked(dict(tokenizer(rows["text"])), tokenizer, indices)

    return _mapped(dataset, encode, num_proc)


def create_tokenized_bert_dataset(dataset: Any, tokenizer: Any, num_proc: int = 1) -> Any:
    """Pair the texts of a dataset, or of each split, as `create_next_sentence` does, tokenize the pairs and mask them.

    The columns are those that the tokenizer makes, ``labels``, and ``next_sentence_label``.
    """
    _check(dataset)
    if isinstance(dataset, Mapping):
        made = {name: create_tokenized_bert_dataset(split, tokenizer, num_proc) for name, split in dataset.items()}
        splits: Any = type(dataset)
        return splits(made)
    texts = dataset.with_format(None)
    others, labels = (numpy.asarray(drawn) for drawn in draw_next(len(dataset), seed=_SEED))

    def encode(rows: Rows, indices: list[int]) -> Rows:
        encoded = tokenizer(rows["text"], texts[others[indices].tolist()]["text"])
        return {**_masked(dict(encoded), tokenizer, indices), "next_sentence_label": labels[indices].tolist()}

    return _mapped(dataset.select(range(len(others))), encode, num_proc)


def create_tokenized_gpt_dataset(
    dataset: Any,
    tokenizer: Any,
    ctx_len: int,
    num_proc: int = 1,
    *,
    shuffle: bool = False,
    process_rank: int = 0,
    num_processes: int = 1,
    chunk_size: int | None = None,
) -> PackedDataset:
    """Tokenize a ``Dataset`` into blocks of ``ctx_len`` tokens across the ends of texts.

    Each text ends with the tokenizer's end token, if it has one. One pass over the result is one over the data.

    Args:
        dataset: The dataset, with a column ``text``.
        tokenizer: A tokenizer of transformers.
        ctx_len: Tokens per block.
        num_proc: Number of processes that tokenize.
        shuffle: As of `darkit.core.utils.dataset.packed.PackedDataset`.
        process_rank: Likewise.
        num_processes: Likewise.
        chunk_size: DarwinKit's number of texts per file of tokens; nothing depends on it, because there are none.

    Raises:
        DataError: The data is not a ``Dataset`` with that column, or too small.
    """
    end = special_token(tokenizer, "end")
    behind = [] if end is None else [end]

    def encode(rows: Rows) -> Rows:
        return {"input_ids": [[*ids, *behind] for ids in encode_batch(tokenizer, rows["text"])]}

    if isinstance(dataset, Mapping):
        raise DataError(f"Choose a split of the dataset: {', '.join(map(str, dataset))}.")
    rows = _mapped(dataset, encode, num_proc, indexed=False)
    row = TokenRow(rows["input_ids"])
    return PackedDataset(row, ctx_len, shuffle=shuffle, process_rank=process_rank, num_processes=num_processes)


def _mapped(dataset: Any, encode: Callable[..., Rows], num_proc: int, *, indexed: bool = True) -> Any:
    remove = _check(dataset)
    settings = {"batched": True, "with_indices": indexed, "remove_columns": remove}
    return dataset.map(encode, num_proc=num_proc if num_proc > 1 else None, **settings)


def _check(dataset: Any) -> list[str]:
    """Return the columns of a dataset, or of all of its splits. Raises `DataError` if it has no texts."""
    columns = getattr(dataset, "column_names", None)
    every = columns.values() if isinstance(columns, Mapping) else [columns]
    if not hasattr(dataset, "map") or not all(isinstance(names, list) and "text" in names for names in every):
        raise DataError(f"dataset must be a Hugging Face Dataset with a column 'text', not {type(dataset).__name__}.")
    return sorted(set().union(*every))


def _masked(encoded: dict[str, Any], tokenizer: Any, indices: list[int]) -> dict[str, Any]:
    masking = Masking(specials_of(tokenizer))
    made = [
        masking(numpy.asarray(ids, dtype=numpy.int64), generator_of(_SEED, index))
        for ids, index in zip(encoded["input_ids"], indices, strict=False)
    ]
    return {**encoded, "input_ids": [ids for ids, _ in made], "labels": [labels for _, labels in made]}
