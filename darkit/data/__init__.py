"""Training data: text for every objective, tables and a regression, each also a ``data=`` choice."""

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
