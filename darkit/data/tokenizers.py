"""Tokenizers trained on text, by Hugging Face ``tokenizers``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from darkit.errors import DataError

END_OF_TEXT = "<|endoftext|>"


def train_bpe(
    texts: Iterable[str], vocab_size: int = 2048, special_tokens: Sequence[str] = (END_OF_TEXT,)
) -> Tokenizer:
    """Trains a byte-level BPE tokenizer: byte-pair encoding (Sennrich et al., 2016) over bytes, as in GPT-2.

    Args:
        texts: What to train on.
        vocab_size: Tokens at most, the 256 bytes and the special tokens included.
        special_tokens: Tokens that text never contains.

    Returns:
        A tokenizer that encodes any text and decodes it to the same.

    Raises:
        DataError: There are fewer tokens than bytes and special tokens.
    """
    fewest = 256 + len(set(special_tokens))
    if vocab_size < fewest:
        raise DataError(f"vocab_size must be at least {fewest} (256 bytes and the special tokens), not {vocab_size}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
