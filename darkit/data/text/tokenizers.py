"""Tokenizers: training, loading, and one interface to all kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from darkit.data.text.pretrained import from_pretrained
from darkit.errors import DataError, nearest
from darkit.runs.home import expanded

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "[UNK]"
_WITHIN = "##"  # prefix of a piece within a word
_BERT = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
_HUB_EXTRA = "pip install 'darkit[hf]'"
_NAMES: dict[str, tuple[str, ...]] = {  # use of a special token -> its usual names, the most usual first
    "end": (END_OF_TEXT, "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[EOS]", "[SEP]"),
    "pad": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
    "cls": ("[CLS]", "<cls>", "<s>"),
    "sep": ("[SEP]", "<sep>", "</s>"),
    "unk": (UNKNOWN, "<unk>", "<|unk|>"),
}
USES = tuple(_NAMES)
_ATTRIBUTES = {name: "eos_token_id" if name == "end" else f"{name}_token_id" for name in _NAMES}  # of transformers


def train_tokenizer(
    texts: Iterable[str],
    kind: str = "bpe",
    vocab_size: int = 2048,
    special_tokens: Sequence[str] | None = None,
) -> Tokenizer:
    """Train a tokenizer.

    Args:
        texts: The training texts.
        kind: ``bpe``, byte-level byte-pair encoding (Sennrich et al., 2016) as in GPT-2; ``wordpiece`` (Schuster and
            Nakajima, 2012) as in BERT, with case and accents kept; ``unigram`` (Kudo, 2018) as in SentencePiece, with
            bytes for unseen characters; or ``characters``, one token each.
        vocab_size: Maximum vocabulary size, with the special tokens.
        special_tokens: The special tokens; None takes the end-of-text token, and for ``wordpiece`` BERT's five. A kind
            that needs an unknown token gets it.

    Returns:
        The tokenizer. ``bpe`` decodes every encoded text to itself.

    Raises:
        DataError: The kind is unknown, or the vocabulary is too small for it.
    """
    if kind not in _TRAINERS:
        raise DataError(f"Unknown kind of tokenizer {kind!r}. {nearest(kind, _TRAINERS)}.")
    special = list(special_tokens if special_tokens is not None else _BERT if kind == "wordpiece" else (END_OF_TEXT,))
    if kind in ("wordpiece", "characters") and UNKNOWN not in special:
        special.append(UNKNOWN)
    byte_tokens = 256 if kind in ("bpe", "unigram") else 1
    fewest = byte_tokens + len(set(special))
    if vocab_size < fewest:
        what = "256 bytes" if byte_tokens > 1 else "1 character"
        raise DataError(f"vocab_size must be at least {fewest} ({what} and the special tokens), not {vocab_size}.")
    try:
        return _TRAINERS[kind](texts, vocab_size, special)
    except DataError:
        raise
    except Exception as error:  # tokenizers raises plain Exception
        raise DataError(f"No {kind} tokenizer of {vocab_size} tokens can be trained on this text: {error}") from error


def train_bpe(
    texts: Iterable[str], vocab_size: int = 2048, special_tokens: Sequence[str] = (END_OF_TEXT,)
) -> Tokenizer:
    """Train a byte-level BPE tokenizer; see `train_tokenizer`."""
    return train_tokenizer(texts, "bpe", vocab_size, special_tokens)


def load_tokenizer(where: Any) -> Any:
    """Load a tokenizer.

    Args:
        where: A `tokenizers.Tokenizer` or a transformers tokenizer, which is returned; the path of a
            ``tokenizer.json``, of a folder with one or of a folder written by ``save_pretrained``; or a name on the
            Hugging Face hub (needs ``darkit[hf]``).

    Raises:
        DataError: It does not exist or is not a tokenizer.
    """
    if not isinstance(where, str | Path):
        if callable(getattr(where, "encode", None)) and callable(getattr(where, "decode", None)):
            return where
        raise DataError(
            "A tokenizer must be a tokenizers.Tokenizer, a transformers tokenizer, the path of a tokenizer.json or a "
            f"name on the Hugging Face hub, not {type(where).__name__}."
        )
    path = expanded(where)
    if path.is_dir():
        if (path / "tokenizer_config.json").is_file():
            return _from_transformers(path, "The folder")
        if not (path / "tokenizer.json").is_file():
            raise DataError(f"The folder {path} has no tokenizer.json.")
        path = path / "tokenizer.json"
    if path.exists():
        try:
            return Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises plain Exception
            raise DataError(f"The file {path} is not a valid tokenizer file: {error}") from error
    if path.suffix or isinstance(where, Path) or where.startswith(("/", ".", "~")):
        raise DataError(f"There is no tokenizer file {path}.")
    return _from_transformers(where, "There is no tokenizer file of this name, and the Hugging Face hub's")


def special_token(tokenizer: Any, use: str) -> int | None:
    """Return a special token by its use.

    Args:
        tokenizer: Any tokenizer.
        use: ``end`` of a text, ``pad``, ``mask``, ``cls`` (first of a sample), ``sep`` or ``unk``.

    Returns:
        Its id, or None if the tokenizer has none.
    """
    found = getattr(tokenizer, _ATTRIBUTES[use], None)
    if found is not None:
        return int(found)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return next((vocabulary[name] for name in _NAMES[use] if name in vocabulary), None)


def needed_token(tokenizer: Any, use: str, purpose: str = "this data") -> int:
    """Return a special token that is required; see `special_token`.

    Args:
        tokenizer: Any tokenizer.
        use: Its use.
        purpose: What needs it, for the error.

    Raises:
        DataError: The tokenizer has none.
    """
    found = special_token(tokenizer, use)
    if found is None:
        names = ", ".join(_NAMES[use][:3])
        raise DataError(
            f"The tokenizer has no {use} token, which {purpose} needs: add one of {names} to its special tokens."
        )
    return found


def vocabulary_size(tokenizer: Any) -> int:
    """Return the largest id of a tokenizer plus one, the vocabulary size of a model."""
    ids: Iterable[int] = tokenizer.get_vocab().values()
    return max(ids, default=-1) + 1


def encode_batch(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Encode texts without added special tokens, truncation or padding."""
    backend = backend_of(tokenizer)
    if backend is None:
        found = tokenizer(list(texts), add_special_tokens=False, truncation=False, padding=False)["input_ids"]
        return [list(ids) for ids in found]
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def backend_of(tokenizer: Any) -> Tokenizer | None:
    """Return the `tokenizers.Tokenizer` of a tokenizer, without truncation and padding, or None."""
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    if backend.truncation is not None or backend.padding is not None:
        backend = Tokenizer.from_str(backend.to_str())
        backend.no_truncation()
        backend.no_padding()
    return backend


def _from_transformers(where: str | Path, what: str) -> Any:
    try:
        return from_pretrained(where)
    except ImportError as error:
        raise DataError(f"The tokenizer {where} needs transformers: {_HUB_EXTRA}.") from error
    except ValueError as error:
        raise DataError(f"{what} {where} is not a valid tokenizer: {error}") from error


def _train_on_bytes(model: Any, trainer: Any, texts: Iterable[str], vocab_size: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(model())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings = {"special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainer(vocab_size=vocab_size, **settings))
    return tokenizer


def _train_wordpiece(texts: Iterable[str], vocab_size: int, special: list[str]) -> Tokenizer:
    """Train with a fixed alphabet, because the trainer's own order of characters is not deterministic."""
    kept = texts if isinstance(texts, Sequence) else list(texts)
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    most = max(1, (vocab_size - len(special)) // 2)  # each character has two tokens, at the start of a word and within
    alphabet = _alphabet(tokenizer.normalizer, kept, most)
    within = [_WITHIN + character for character in alphabet if _continues_word(tokenizer, character)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*special, *within],  # special tokens get their ids first
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(kept, trainer)
    vocabulary = tokenizer.get_vocab()
    trained = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN))
    trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trained.decoder = tokenizer.decoder
    trained.add_special_tokens(special)
    cls, sep = special_token(trained, "cls"), special_token(trained, "sep")
    if cls is not None and sep is not None:
        trained.post_processor = bert_template(cls, sep)
    return trained


def bert_template(cls: int, sep: int) -> processors.TemplateProcessing:
    """Return the post-processor that adds ``[CLS]`` and ``[SEP]`` to a text or to a pair."""
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )


def _alphabet(normalizer: Any, texts: Iterable[str], most: int) -> list[str]:
    """Return the most frequent characters of texts, sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    found = sorted((one for one in counts if not one.isspace()), key=lambda one: (-counts[one], one))
    return sorted(found[:most])


def _continues_word(tokenizer: Tokenizer, character: str) -> bool:
    """Return whether a character can be within a word, unlike punctuation and Chinese."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(f"a{character}"))) == 1


def _train_characters(texts: Iterable[str], vocab_size: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


_TRAINERS: dict[str, Callable[[Iterable[str], int, list[str]], Tokenizer]] = {
    "bpe": partial(_train_on_bytes, models.BPE, trainers.BpeTrainer),
    "wordpiece": _train_wordpiece,
    "unigram": partial(_train_on_bytes, models.Unigram, trainers.UnigramTrainer),
    "characters": _train_characters,
}
KINDS = tuple(_TRAINERS)
