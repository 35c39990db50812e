"""Data to train on, each also a ``data=`` choice: text for every objective, tables, and a regression."""

from darkit.data.choice import DataChoice
from darkit.data.collate import Pad
from darkit.data.files import text_files
from darkit.data.labelled import LabelledTexts, labelled_text
from darkit.data.masked import masked_text
from darkit.data.masking import MaskedTokens, Masking
from darkit.data.pairs import SentencePairs
from darkit.data.preparation import Prepared, cache_folder, open_prepared, prepare
from darkit.data.regression import regression
from darkit.data.seq2seq import TextPairs, text_pairs
from darkit.data.sources import Record, Source, open_source, text_source
from darkit.data.specials import specials_of, word_beginnings
from darkit.data.splits import Split, split_records
from darkit.data.stream import TokenStream, streamed_text
from darkit.data.tables import table_data
from darkit.data.text import embedded_documents, split_documents, text_data
from darkit.data.tokenizers import load_tokenizer, train_bpe, train_tokenizer
from darkit.data.windows import DocumentWindows, TokenRow, TokenWindows, unigram_cross_entropy

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
