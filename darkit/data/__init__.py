"""Training data: text for every objective, tables and a regression, each also a ``data=`` choice."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkit.data.collate import Pad
    from darkit.data.objectives.causal import embedded_documents, split_documents, text_data
    from darkit.data.objectives.files import text_files
    from darkit.data.objectives.labelled import LabelledTexts, labelled_text
    from darkit.data.objectives.masked import masked_text
    from darkit.data.objectives.masking import MaskedTokens, Masking
    from darkit.data.objectives.next_sentence import SentencePairs
    from darkit.data.objectives.regression import regression
    from darkit.data.objectives.seq2seq import TextPairs, text_pairs
    from darkit.data.objectives.tables import table_data
    from darkit.data.sources.choice import DataChoice
    from darkit.data.sources.source import Record, Source, open_source, text_source
    from darkit.data.sources.splits import Split, split_records
    from darkit.data.text.preparation import Prepared, cache_folder, open_prepared, prepare
    from darkit.data.text.specials import specials_of, word_beginnings
    from darkit.data.text.stream import TokenStream, streamed_text
    from darkit.data.text.tokenizers import load_tokenizer, train_bpe, train_tokenizer
    from darkit.data.text.windows import DocumentWindows, TokenRow, TokenWindows, unigram_cross_entropy

__all__ = [
    "DataChoice",
    "DocumentWindows",
    "LabelledTexts",
    "MaskedTokens",
    "Masking",
    "Pad",
    "Prepared",
    "Record",
    "SentencePairs",
    "Source",
    "Split",
    "TextPairs",
    "TokenRow",
    "TokenStream",
    "TokenWindows",
    "cache_folder",
    "embedded_documents",
    "labelled_text",
    "load_tokenizer",
    "masked_text",
    "open_prepared",
    "open_source",
    "prepare",
    "regression",
    "specials_of",
    "split_documents",
    "split_records",
    "streamed_text",
    "table_data",
    "text_data",
    "text_files",
    "text_pairs",
    "text_source",
    "train_bpe",
    "train_tokenizer",
    "unigram_cross_entropy",
    "word_beginnings",
]

_LAZY = {  # a run imports the kind of data that it has
    "Pad": "darkit.data.collate",
    **dict.fromkeys(("embedded_documents", "split_documents", "text_data"), "darkit.data.objectives.causal"),
    "text_files": "darkit.data.objectives.files",
    **dict.fromkeys(("LabelledTexts", "labelled_text"), "darkit.data.objectives.labelled"),
    "masked_text": "darkit.data.objectives.masked",
    **dict.fromkeys(("MaskedTokens", "Masking"), "darkit.data.objectives.masking"),
    "SentencePairs": "darkit.data.objectives.next_sentence",
    "regression": "darkit.data.objectives.regression",
    **dict.fromkeys(("TextPairs", "text_pairs"), "darkit.data.objectives.seq2seq"),
    "table_data": "darkit.data.objectives.tables",
    "DataChoice": "darkit.data.sources.choice",
    **dict.fromkeys(("Record", "Source", "open_source", "text_source"), "darkit.data.sources.source"),
    **dict.fromkeys(("Split", "split_records"), "darkit.data.sources.splits"),
    **dict.fromkeys(("Prepared", "cache_folder", "open_prepared", "prepare"), "darkit.data.text.preparation"),
    **dict.fromkeys(("specials_of", "word_beginnings"), "darkit.data.text.specials"),
    **dict.fromkeys(("TokenStream", "streamed_text"), "darkit.data.text.stream"),
    **dict.fromkeys(("load_tokenizer", "train_bpe", "train_tokenizer"), "darkit.data.text.tokenizers"),
    **dict.fromkeys(
        ("DocumentWindows", "TokenRow", "TokenWindows", "unigram_cross_entropy"), "darkit.data.text.windows"
    ),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'darkit.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
